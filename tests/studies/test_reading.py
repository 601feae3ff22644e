"""Tests of `fedmem/studies/reading.py`: a finished study is read whole, and shows itself escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import fedmem
from fedmem.errors import FolderError
from fedmem.estimation.saturation import NOWHERE
from fedmem.studies.reading import study_html
from fedmem.studies.stored import StoredStudy, write_study
from fedmem.studies.tables import TABLES, put, results
from tests.estimation.saturation_helpers import SHARP, compared

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    comparison = compared(SHARP, NOWHERE)
    write_study(tmp_path, StoredStudy(title="two rules", comparison=comparison, failures=("krum, seed 3: broken",)))
    for name, rows in TABLES.items():
        put(tmp_path, name, list(rows(comparison)))
    return tmp_path


def test_a_folder_gives_its_tables_as_frames(folder: Path) -> None:
    study = fedmem.read_comparison(folder)
    assert (study.title, study.failures) == ("two rules", ("krum, seed 3: broken",))
    assert study.tables == tuple(TABLES)
    assert len(study.values) == 8
    assert set(study.differences["verdict"]) >= {"lower"}
    with pytest.raises(AttributeError, match=r"no 'diferences'; its tables are values, rounds, differences"):
        _ = study.diferences
    put(folder, "results", list(results(study.comparison)))
    assert len(fedmem.read_comparison(folder).results) > 0


def test_a_study_shows_differences_with_intervals_and_verdict(folder: Path) -> None:
    page = fedmem.read_comparison(folder)._repr_html_()
    assert "two rules</b>: 2 settings, 4 seeds" in page
    assert "krum, seed 3: broken" in page
    assert "<td>lower</td>" in page
    flat = compared([SHARP[0], [8.0, 8.2, 8.1, 8.2]], NOWHERE)
    assert "<td>not significant</td>" in study_html("t", flat, (), folder)


def test_whatever_a_user_names_is_escaped(tmp_path: Path) -> None:
    comparison = compared(SHARP, NOWHERE)
    (series,) = comparison.series
    quantity = replace(series.quantity, kind=HOSTILE, title=HOSTILE)
    settings = tuple((("strategy.kind", f"{HOSTILE}{i}"),) for i in range(2))
    hostile = replace(comparison, settings=settings, warnings=(HOSTILE,), series=(replace(series, quantity=quantity),))
    page = study_html(HOSTILE, hostile, (HOSTILE,), tmp_path / "<b>")
    assert "<img" not in page
    assert "<b></code>" not in page
    assert page.count("&lt;img") >= 7


def test_a_folder_that_is_no_study_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"has no series\.json"):
        fedmem.read_comparison(tmp_path)
