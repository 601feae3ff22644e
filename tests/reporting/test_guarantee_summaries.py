"""Tests of `fedmem/reporting/guarantee_summaries.py`: a guarantee stands with its limits."""

from __future__ import annotations

from pathlib import Path

from fedmem.reporting.guarantee_summaries import guarantees_of
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


def test_a_guarantee_names_other_neighbours_and_its_limits(tmp_path: Path) -> None:
    entry = {
        "part": "client", "against": "clients' updates", "unit": "record", "adjacency": "zero_out", "epsilon": 3.0,
        "delta": 1e-3, "covers": "the values of the updates; not reported losses",
    }  # fmt: skip
    manifest = {"executor": "stacked", "privacy": {"mechanisms": [entry], "says": "One run."}}
    measurements = [
        row("epsilon.permitted", value, "typical-own", f"part={part} unit=record adjacency={adjacency} delta=0.001")
        for part, adjacency, value in (
            ("client", "replace", 5.85), ("client", "zero_out", 3.0), ("strategy", "replace", 9.0)
        )
    ]  # fmt: skip
    write(tmp_path / "run", bank(), measurements=measurements, scenario_yaml=SCENARIO, manifest=manifest)
    (guarantee,) = guarantees_of(Summary(read(tmp_path / "run")))
    assert guarantee.other_neighbours == ("replace: 5.85",)
    assert guarantee.limits == ("one run", "not reported losses")
