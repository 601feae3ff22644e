"""Tests of `fedmem/reporting/sections.py`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fedmem.reporting.sections import alarms, sections
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
