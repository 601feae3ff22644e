"""Tests of `fedmem/reporting/agreement_section.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fedmem.contracts.measurement import Labels, Measurement
from fedmem.reporting.agreement_section import agreement_section
from fedmem.reporting.cells import Section
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import KINDS, SCENARIO, row, rows
from tests.results.read_helpers import bank, write

FIRST, _ = KINDS


def section(folder: Path, *more: Measurement, everything: bool = False) -> Section:
    write(folder, bank(), measurements=[*rows(), *more], scenario_yaml=SCENARIO)
    return agreement_section(Summary(read(folder)), everything=everything)


def of(
    name: str, value: float, subject: str = FIRST, *, side: str = "in", target: str = "memorisation", **more: Any
) -> Measurement:
    about = {key: more.pop(key) for key in ("place", "given") if key in more}
    return row("agreement", value, subject, Labels.of(statistic=side, target=target, of=name, **about), **more)


def test_a_run_without_agreements_has_no_section(tmp_path: Path) -> None:
    found = section(tmp_path / "run")
    assert not any(block for _, block in found.blocks)
    assert found.notes == ()


def test_proxies_are_in_the_order_of_what_is_known(tmp_path: Path) -> None:
    unknown: dict[str, Any] = {"low": math.nan, "high": math.nan}
    found = section(
        tmp_path / "run",
        of("el2n", -0.9, place="owner", level="local", n=25),
        of("el2n", 0.1, n=25),
        of("grad_norm", 0.99, **unknown),
        of("loss", 0.4),
        of("loss", math.nan, "all"),
        # of others, given others, or of other runs
        of("entropy", 1.0, place="others", level="local"),
        of("entropy", 1.0, given="class"),
        of("entropy", 1.0, side="gain"),
        of("entropy", 1.0, target="exposure"),
    )
    blocks = dict(found.blocks)
    (el2n, loss) = blocks[f"{FIRST}, ρ with memorisation"]
    assert el2n == ("EL2N", "25", "−0.90 [−1.00, −0.80]", "0.10 [0.00, 0.20]")
    assert (loss[0], loss[2]) == ("loss", "–")
    assert blocks["all, ρ with memorisation"] == ()
    assert "Of 5 values, 1 are undefined" in found.notes[1]


def test_with_everything_no_proxy_is_left_out(tmp_path: Path) -> None:
    names = (
        "el2n",
        "grad_norm",
        "entropy",
        "loss",
        "logit_margin",
        "confidence",
        "aum",
        "forgetting",
        "final_learning",
    )
    more = [of(name, 0.5) for name in names]
    short, full = (
        dict(section(tmp_path / str(everything), *more, everything=everything).blocks)[f"{FIRST}, ρ with memorisation"]
        for everything in (False, True)
    )
    assert (len(short), len(full)) == (8, len(names))
