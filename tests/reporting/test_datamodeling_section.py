"""Tests of `fedmem/reporting/datamodeling_section.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedmem.contracts.measurement import Labels, Measurement
from fedmem.reporting.cells import Section
from fedmem.reporting.datamodeling_section import datamodeling_section
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row, rows
from tests.results.read_helpers import bank, write


def section(folder: Path, *more: Measurement) -> Section:
    write(folder, bank(), measurements=[*rows(), *more], scenario_yaml=SCENARIO)
    return datamodeling_section(Summary(read(folder)))


def of(name: str | None, value: float, targets: str, metric: str = "lds", **more: Any) -> Measurement:
    labels = Labels.of(of=name, targets=targets, place=more.pop("place", None))
    return row(metric, value, "all", labels, **more)


def test_a_run_without_scores_has_no_section(tmp_path: Path) -> None:
    found = section(tmp_path / "run")
    assert not any(block for _, block in found.blocks)
    assert found.notes == ()


def test_signals_baseline_and_ceiling_stand_at_both_levels(tmp_path: Path) -> None:
    found = section(
        tmp_path / "run",
        of("tracin", 0.4, "test", n=12),
        of("tracin", 0.2, "test", place="owner", level="local", n=30),
        of("datamodel", 0.1, "test", n=12),
        of(None, 0.7, "test", "lds.ceiling", n=12),
        of("tracin", 0.9, "audit", n=5),
    )
    blocks = dict(found.blocks)
    assert [each[0] for each in blocks["test, ρ with margins over runs"]] == [
        "TracIn",
        "in − out over runs (datamodel)",
        "largest possible, by twins",
    ]
    (first, *_) = blocks["test, ρ with margins over runs"]
    assert "0.20" in first[2]
    assert "0.40" in first[3]
    assert len(blocks["audit, ρ with margins over runs"]) == 1
    assert blocks["audit without itself, ρ with margins over runs"] == ()
    assert found.notes
