"""Tests of `fedmem/reporting/glance.py`."""

from __future__ import annotations

import math
from typing import Any

from fedmem.reporting.glance import glance
from fedmem.results.run_summary import Finding, KindSummary, Measured, RunSummary


def measured(value: float, low: float, high: float, **more: Any) -> Measured:
    return Measured(
        value=value, low=low, high=high, n=9, keys=(), **{"null": 0.0, "p": 0.5 if low < 0 else 0.01} | more
    )


def brief(*findings: tuple[str, Finding]) -> RunSummary:
    kinds = dict.fromkeys(kind for kind, _ in findings)
    summaries = tuple(
        KindSummary(kind=name, examples=9, findings=tuple(finding for kind, finding in findings if kind == name))
        for name in kinds
    )
    return RunSummary(
        name="", id="", headline="", components={}, seed=0, versions={}, commit="", measurements_sha256="", alarms=(),
        warnings=(), failures=0, client_rounds=0, verdicts=(), kinds=summaries, models=(), leaks=(), guarantees=(),
        audits=(), not_significant=(), below=(), undefined=(), limits=(),
    )  # fmt: skip


def finding(title: str, local: Measured | None, aggregate: Measured | None, retention: Measured | None) -> Finding:
    return Finding(
        shows="memorised", metric=title, title=title, unit="bits" if title == "exposure" else "", digits=2, labels={},
        local=local, aggregate=aggregate, retention=retention,
    )  # fmt: skip


def test_cells_have_levels_retention_and_what_is_not_significant() -> None:
    none = measured(math.nan, math.nan, math.nan)
    table = glance(
        brief(
            ("a", finding("memorisation", measured(0.5, 0.4, 0.6), measured(0.1, -0.1, 0.3), none)),
            ("b", finding("memorisation", measured(-0.5, -0.6, -0.4, p=0.01), None, None)),
            ("b", finding("exposure", measured(8.0, 7.0, 9.0, saturated=True), None, None)),
        )
    )
    assert table is not None
    assert table.columns == ["memorisation", "exposure, bits"]
    ((first, cells), (second, others)) = table.rows
    assert (first, second) == ("a", "b")
    assert cells[0].lines == [
        ("local", "0.50 [0.40, 0.60]"),
        ("global", "0.10 [−0.10, 0.30], not significant"),
        ("retained", "undefined"),
    ]
    assert (cells[1].lines, cells[1].bars) == ((), "")
    assert others[0].lines == [("local", "−0.50 [−0.60, −0.40], below its null")]
    assert others[1].lines == [("local", "8.00 [7.00, 9.00]†")]
    # a column has one scale, from −0.6 to 0.6: half a unit is at 11/12 of it
    assert f'cx="{6 + 196 * 11 / 12:.2f}"' in cells[0].bars
    assert f'cx="{6 + 196 / 12:.2f}"' in others[0].bars


def test_a_run_without_findings_has_no_table() -> None:
    assert glance(brief()) is None
