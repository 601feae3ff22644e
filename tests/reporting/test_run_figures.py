"""Tests of `fedmem/reporting/run_figures.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fedmem.reporting.page import report
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from fedmem.results.write import replace_measurements
from tests.reporting.page_helpers import KINDS, SCENARIO, pictures, row, rows
from tests.results.read_helpers import bank, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return tmp_path / "run"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder with its report."""
    path = tmp_path_factory.mktemp("drawn") / "run"
    write(path, bank(), measurements=rows(), scenario_yaml=SCENARIO, reconstructions=pictures())
    return report(path).parent


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_point_that_is_hardly_known_is_hollow(folder: Path, drawn: Path) -> None:
    before = content(drawn)
    uncertain = [
        row("auc", one.reading.value, one.reading.subject, one.reading.labels, level=one.level, round=one.round,
            low=one.reading.low - 0.3, high=one.reading.high + 0.3)
        if one.reading.metric == "auc" else one
        for one in rows()
    ]  # fmt: skip
    replace_measurements(folder, uncertain)
    page = report(folder).read_text(encoding="utf-8")
    assert "hollow: the interval spans more than half of 0 to 1" in page
    assert before["lira_auc.png"] != (folder / "lira_auc.png").read_bytes()
    assert before["memorisation.png"] == (folder / "memorisation.png").read_bytes()
    assert "hollow" not in before["report.html"].decode()


def test_figures_are_reproducible_and_follow_the_rows(drawn: Path, tmp_path: Path) -> None:
    before, folder = content(drawn), Path(shutil.copytree(drawn, tmp_path / "run"))
    assert before == content(report(folder).parent)
    changed = [
        one if one.reading.metric != "exposure" else row("exposure", 1.0, "pattern", round=one.round) for one in rows()
    ]
    replace_measurements(folder, changed)
    after = content(report(folder).parent)
    assert before["exposure.png"] != after["exposure.png"]
    assert before["memorisation.png"] == after["memorisation.png"]


def test_reconstruction_is_drawn_over_rounds_of_the_first_probe(tmp_path: Path) -> None:
    """Ins against outs, round by round; rows of a further probe and of other kinds stay out of the line."""
    said = "contrast=coins minus=out view=message knows=lr+steps"
    extra = [
        row("margin.difference", value, KINDS[0], said, level="local", n=9, source=source, round=round_number)
        for round_number, value, source in ((2, 3.0, "leakage"), (4, 1.5, "leakage"), (2, 8.0, "leakage_2"))
    ]
    write(tmp_path / "run", bank(), measurements=[*rows(), *extra], scenario_yaml=SCENARIO, reconstructions=pictures())
    summary = Summary(read(tmp_path / "run"))
    assert [
        (round_number, value.value, value.n) for round_number, value in summary.leakage_by_round("message", KINDS[0])
    ] == [
        (2, 3.0, 9),
        (4, 1.5, 9),
    ]
    assert summary.leakage_by_round("aggregate", KINDS[1]) == []
    report(tmp_path / "run")
    assert (tmp_path / "run" / "reconstruction.png").read_bytes().startswith(b"\x89PNG")
