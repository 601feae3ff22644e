"""Tests of `fedmem/reporting/table.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.reporting.table import NO_LIMIT
from tests.forked import fedmem
from tests.reporting.page_helpers import SCENARIO, lines, pictures, rows
from tests.results.read_helpers import bank, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return tmp_path / "run"


CELL = r"≈?−?[\d.]+ \[[<>−\d.]+, [<>−\d.]+\]"
"""A value with its interval, unbroken."""


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits_its_terminal_and_breaks_no_cell(folder: Path, width: int) -> None:
    fitted, free = lines(folder, width), lines(folder, NO_LIMIT)
    assert max(map(len, fitted)) <= width
    assert re.findall(CELL, "\n".join(fitted)) == re.findall(CELL, "\n".join(free))
    verdicts = r"local higher|local lower|first higher|not significant|undefined"
    said = [line for line in fitted if re.search(CELL, line)]
    assert sum(len(re.findall(verdicts, line)) for line in said) >= (3 if width > 40 else 0)
    for line in fitted[next(i for i, line in enumerate(fitted) if line.startswith("LOCAL AND GLOBAL")) :]:
        assert line.count("[") == line.count("]"), "a line ends inside an interval"


@pytest.mark.parametrize("width", [80, 120, NO_LIMIT])
def test_brackets_stand_below_each_other_in_all_sections(folder: Path, width: int) -> None:
    both = [line for line in lines(folder, width) if len(re.findall(CELL, line)) == 2]
    assert len(both) >= 10
    assert len({tuple(at.start() for at in re.finditer(r"\[\S+, \S+\]", line)) for line in both}) == 1


def test_piped_report_has_no_line_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = fedmem("report", str(folder), "--full")
    assert done.returncode == 0, done.stderr
    piped = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line for line in lines(folder, NO_LIMIT) if line] == [
        line for line in piped if line and not line.startswith(("Files: ", "Report: "))
    ]
    assert f"Files: {folder.resolve()}" in piped, "a path can be copied whole"
