"""Tests of `fedmem/reporting/sections.py`."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedmem.reporting.sections import alarms, headline, sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


def test_alarms_table_shows_three_and_counts_the_rest() -> None:
    run: Any = SimpleNamespace(manifest={"alarms": [f"round {round_number}" for round_number in range(9)]})
    assert alarms(run) == [
        *(f"ALARM: round {round_number}" for round_number in range(3)),
        "ALARM: and 6 more, all in manifest.json",
    ]


def test_sections_without_rows_are_empty(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(), measurements=[row("memorisation", 0.5, "pattern")], scenario_yaml=SCENARIO)
    shown = {section.title: section for section in sections(Summary(read(tmp_path / "run")))}
    for title in ("CROSS-INFLUENCE", "CLIENT INFLUENCE", "UTILITY"):
        assert not any(block for _, block in shown[title].blocks)
        assert not shown[title].notes


def test_the_row_by_probability_is_shown_wherever_it_is_measured(tmp_path: Path) -> None:
    """It says nothing of equal answers where answers differ."""
    for value in (0.0, 0.5):
        answers = row("memorisation", value, "pattern", "place=owner", level="local", low=math.nan, high=math.nan)
        sure = row(
            "memorisation", 0.05, "pattern", "place=owner statistic=probability", level="local", low=0.02, high=0.08
        )
        rows = [answers, sure]
        folder = tmp_path / str(value)
        write(folder, bank(), measurements=rows, scenario_yaml=SCENARIO)
        levels = next(iter(sections(Summary(read(folder)))))
        shown = {cells[0]: cells[2] for _, block in levels.blocks for cells in block}
        assert list(shown) == ["pattern", "pattern, by probability"]
        assert any("no sign that nothing is memorised" in note for note in levels.notes) == (value == 0)
        assert shown["pattern, by probability"] == "0.050 [0.020, 0.080]"


def test_retention_stands_under_its_own_rate(tmp_path: Path) -> None:
    """Where it is undefined at one rate, the value at the other rate does not take its place."""
    rows = [row("tpr", 0.3, "pattern", f"attack=lira fpr={fpr}") for fpr in (0.069, 0.1)]
    nothing = {"low": math.nan, "high": math.nan}
    rows.append(row("retention", math.nan, "pattern", "of=tpr attack=lira fpr=0.069 resolved=no", **nothing))
    rows.append(row("retention", 0.66, "pattern", "of=tpr attack=lira fpr=0.1"))
    write(tmp_path / "run", bank(), measurements=rows, scenario_yaml=SCENARIO)
    (section,) = (one for one in sections(Summary(read(tmp_path / "run"))) if one.title == "RETENTION")
    shown = {heading.rpartition("FPR ")[2]: [cells[-1] for cells in block] for heading, block in section.blocks}
    assert shown == {"that the data support": ["undefined"], "0.1": ["0.66 [0.56, 0.76]"]}


def test_one_of_each_is_singular(tmp_path: Path) -> None:
    scenario = "name: small\nruns: 1\nrounds: 1\nclients: 1\n"
    write(tmp_path / "run", bank(m=1), measurements=[], scenario_yaml=scenario)
    said = headline(read(tmp_path / "run"))
    assert said == "small: 1 run of 1 round, 1 client, 1 audit example, each in or out at random"
