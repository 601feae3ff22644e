"""Tests of `fedmem/reporting/guarantee_summaries.py`: a guarantee stands with its limits."""

from __future__ import annotations

from pathlib import Path

from fedmem.reporting import privacy_sections
from fedmem.reporting.guarantee_summaries import guarantees_of
from fedmem.reporting.screen_notes import guarantee_text
from fedmem.reporting.summarise import summarise
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


def test_the_worst_case_stands_before_the_schedule(tmp_path: Path) -> None:
    entry = {
        "part": "client", "against": "clients' updates", "unit": "record", "adjacency": "zero_out", "epsilon": 3.47,
        "largest_epsilon": 3.999, "delta": 1e-3, "covers": "the updates", "rate": 1, "sampling": "poisson",
        "noise_multiplier": 1.0, "accountant": "rdp",
    }  # fmt: skip
    manifest = {"executor": "stacked", "privacy": {"mechanisms": [entry], "says": "One run."}}
    of_replacing = row("epsilon.permitted", 5.85, "a", "part=client unit=record adjacency=replace delta=0.001")
    write(tmp_path / "run", bank(), measurements=[of_replacing], scenario_yaml=SCENARIO, manifest=manifest)
    run = read(tmp_path / "run")
    summary = summarise(run)
    text = guarantee_text(summary)
    assert text.startswith("Guaranteed: epsilon 4.00 (3.47 for this schedule), delta 0.001 for a record")
    assert "replace: 5.85 for this schedule" in text
    said = "A client that participates as often as it can has"
    assert any(f"{said} 4.00." in limit for limit in summary.limits)
    (privacy, *_) = privacy_sections.sections(run)
    assert any(f"{said} epsilon 4.00." in note for note in privacy.notes)
