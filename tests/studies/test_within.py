"""Tests of `fedmem/studies/within.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Labels
from fedmem.studies.compare import compare
from fedmem.studies.comparison import Comparison
from fedmem.studies.quantities import Quantity, Series
from fedmem.studies.report import Table
from fedmem.studies.within import differences_within
from tests.studies.compare_helpers import small


def _series(kind: str, level: str, values: list[float]) -> Series:
    quantity = Quantity(
        metric="exposure", labels=Labels(), kind=kind, level=level, title="exposure", headline=True, unit="bits"
    )
    numbers: FloatArray = np.array([values])
    nothing = np.full(numbers.shape, np.nan)
    return Series(
        quantity=quantity,
        values=numbers,
        null=nothing,
        n=np.ones_like(numbers),
        paired=nothing,
        paired_null=nothing,
        fpr=nothing,
        rounds={},
    )


PIN, ROW = [5.0, 5.5, 6.1, 5.2], [1.0, 1.4, 1.1, 0.8]


def _comparison() -> Comparison:
    series = (
        _series("pin", "local", PIN),
        _series("pin", "global", [2.0, 2.5, 2.2, 2.8]),
        _series("row", "local", ROW),
        _series("row", "global", [1.1, 1.2, 1.1, 0.9]),
    )
    return Comparison(settings=((),), reference=(0,), seeds=(0, 1, 2, 3), series=series)


def test_kinds_and_levels_are_paired_t_tests_over_seeds() -> None:
    entries = differences_within(_comparison())
    found = [(entry.between, entry.quantity.kind, entry.quantity.level, entry.minus) for entry in entries]
    assert found == [
        ("kinds", "pin", "local", "row"),
        ("kinds", "pin", "global", "row"),
        ("levels", "pin", "local", "global"),
        ("levels", "row", "local", "global"),
    ]
    test = stats.ttest_rel(PIN, ROW)
    ends = test.confidence_interval(1 - 0.05 / 2)
    first = entries[0]
    assert first.tests == 2
    assert (first.contrast.p, first.adjusted.p) == pytest.approx((test.pvalue, 2 * test.pvalue))
    assert (first.adjusted.low, first.adjusted.high) == pytest.approx((ends.low, ends.high))
    assert [entry.verdict for entry in entries] == ["higher", "higher", "higher", "not significant"]


def test_rates_at_other_false_positive_rates_are_not_compared() -> None:
    comparison = _comparison()
    first, *others = comparison.series
    changed = replace(comparison, series=(replace(first, fpr=np.full((1, 4), 0.1)), *others))
    assert differences_within(changed)[0].verdict == "higher"  # the other has no rate
    both = [
        replace(series, fpr=np.full((1, 4), rate))
        for series, rate in zip(comparison.series, (0.1, 0.2, 0.1, 0.2), strict=True)
    ]
    verdicts = [entry.verdict for entry in differences_within(replace(comparison, series=tuple(both)))]
    assert verdicts == ["higher", "higher", "other rates", "other rates"]


def test_one_setting_is_compared_over_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.studies.figures.draw_all", lambda comparison: iter(()))
    injections = [{"kind": "random_pattern", "per_client": 2}, {"kind": "mislabelled", "per_client": 2}]
    scenario = small(rounds=2, injections=injections, estimators=[{"kind": "memorisation"}])
    done = compare(scenario, seeds="0:3", out=tmp_path, jobs=1)
    assert [dict(cell.setting) for cell in done.cells] == [{}, {}, {}]
    values, within = done.values, done.within
    kinds = within[(within.metric == "memorisation") & (within.between == "kinds") & (within.level == "global")]
    rows = (
        values[(values["with"] == "") & (values.metric == "memorisation") & (values.level == "global")]
        .set_index(["kind", "seed"])
        .value
    )
    expected = (rows[kinds.kind.item()] - rows[kinds.minus.item()]).mean()
    assert kinds.difference.item() == pytest.approx(expected)
    assert kinds.tests.item() == 2
    text = "\n".join(line for line, _ in Table(done.comparison).lines(120))
    assert "DIFFERENCES OF KINDS" in text
    assert "LOCAL MINUS GLOBAL" in text
    assert "Nothing is compared" not in text
    assert "differences of kinds" in (done.path / "comparison.html").read_text().lower()
