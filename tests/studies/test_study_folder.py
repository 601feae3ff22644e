"""Tests of `fedmem/studies/study_folder.py`: studies by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.errors import ScenarioError
from fedmem.studies.study import Study
from fedmem.studies.study_folder import find_study, study_names
from tests.studies.study_folder_helpers import CODE, study_folder

CLONE = Path(__file__).resolve().parents[2]


def test_names_are_those_of_folders_with_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CLONE)
    names = study_names()
    assert "generative" in names
    assert "sweeps" not in names
    assert {name for name in names if "/" not in name} == {
        path.parent.name for path in CLONE.glob("experiments/*/run.py") if "STUDY =" in path.read_text()
    }
    study, folder = find_study("generative")
    assert study.question.endswith("?")
    assert folder == CLONE / "experiments" / "generative"


def test_study_of_a_user_is_found_by_its_path(tmp_path: Path) -> None:
    folder = study_folder(tmp_path, "mine_by_path")
    study, found = find_study(str(folder))
    assert isinstance(study, Study)
    assert found == folder


def test_further_studies_have_the_folder_of_their_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "experiments").mkdir()
    folder = study_folder(tmp_path / "experiments", "mine_with_parts")
    (folder / "part.py").write_text(CODE.replace("Is a canary", "Is a part"))
    (folder / "program.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert study_names() == ("mine_with_parts", "mine_with_parts/part")
    for name in ("mine_with_parts/part", str(folder / "part"), "experiments/mine_with_parts/part"):
        study, found = find_study(name)
        assert study.question == "Is a part memorised?"
        assert found == folder
    with pytest.raises(ScenarioError, match="has no STUDY"):
        find_study("mine_with_parts/program")


def test_missing_studies_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CLONE)
    with pytest.raises(ScenarioError, match="did you mean 'generative'"):
        find_study("generativ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScenarioError, match="use a clone"):
        find_study("generative")
    with pytest.raises(ScenarioError, match="has no STUDY"):
        find_study(str(study_folder(tmp_path, "mine_empty", code="")))
