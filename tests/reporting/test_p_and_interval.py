"""Tests of `fedmem/reporting/p_and_interval.py`."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedmem.contracts.measurement import Measurement
from fedmem.reporting.cells import Section, Value
from fedmem.reporting.p_and_interval import differ, is_evident_in_neither
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


def sections_of(folder: Path, rows: list[Measurement]) -> dict[str, Section]:
    write(folder, bank(), measurements=rows, scenario_yaml=SCENARIO)
    return {section.title: section for section in sections(Summary(read(folder)))}


@pytest.mark.parametrize(
    ("p", "low", "null", "expected"),
    [(0.01, 1.0, 1.4, True), (0.01, 1.5, 1.4, False), (0.2, 1.5, 1.4, True), (0.2, 1.0, 1.4, False),
     (math.nan, 1.5, 1.4, False), (0.01, 1.0, math.nan, False)],
)  # fmt: skip
def test_p_and_interval_differ_where_one_alone_tells(p: float, low: float, null: float, expected: bool) -> None:
    assert differ(Value(value=1.6, low=low, high=2.0, n=9, p=p), null) == expected


def test_a_p_of_exposure_stands_with_the_gain_it_is_about(tmp_path: Path) -> None:
    """p compares in with out runs, the interval a canary with its references."""
    rows = [
        row("exposure", 1.48, "pattern", low=1.08, high=2.0),
        row("exposure.null", 1.44, "pattern", low=math.nan, high=math.nan),
        row("exposure.p", 0.008, "pattern", n=999, low=math.nan, high=math.nan),
        row("exposure_gain", 0.31, "pattern", low=0.11, high=0.52),
    ]
    levels = sections_of(tmp_path / "run", rows)["LOCAL AND GLOBAL"]
    (note,) = (note for note in levels.notes if note.startswith("p and interval differ"))
    assert "exposure of pattern, global (gain 0.31 [0.11, 0.52])" in note
    assert [cells[0] for _, block in levels.blocks for cells in block] == ["pattern"], "the null is known"


def test_a_kind_without_null_has_a_row_of_its_gain(tmp_path: Path) -> None:
    rows = [
        row("exposure", 2.13, "pattern", "place=owner", level="local"),
        row("exposure", 1.57, "pattern"),
        row("exposure_gain", 1.31, "pattern", "place=owner", level="local"),
        row("exposure_gain", 0.44, "pattern"),
    ]
    levels = sections_of(tmp_path / "run", rows)["LOCAL AND GLOBAL"]
    cells = {line[0]: line[2:] for _, block in levels.blocks for line in block}
    assert cells["pattern, exposure gain"] == ("1.31 [1.21, 1.41]", "0.44 [0.34, 0.54]")
    assert any("Read the row pattern, exposure gain" in note for note in levels.notes)


@pytest.mark.parametrize(("p", "is_noted"), [(0.11, True), (0.01, False)])
def test_a_difference_of_kinds_that_no_p_tells_is_explained(tmp_path: Path, p: float, is_noted: bool) -> None:
    rows = [
        row("memorisation", 0.0625, "pattern"),
        row("memorisation", 0.0, "typical-own"),
        row("memorisation.p", p, "pattern", low=math.nan, high=math.nan),
        row("memorisation.p", 1.0, "typical-own", low=math.nan, high=math.nan),
        row("memorisation.difference", 0.062, "pattern", "contrast=kinds minus=typical-own", low=0.006, high=0.119),
    ]
    notes = " ".join(sections_of(tmp_path / str(p), rows)["DIFFERENCES"].notes)
    assert ("memorisation, global, pattern − typical-own: the interval of the difference" in notes) == is_noted


def test_a_side_without_p_shows_nothing() -> None:
    side, unknown = Value(value=0.1, low=0, high=1, n=9, p=0.3), Value(value=0.1, low=0, high=1, n=9)
    assert is_evident_in_neither([side, side])
    assert not is_evident_in_neither([side, unknown])
    assert not is_evident_in_neither([side])
