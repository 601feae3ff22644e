"""Tests of `fedmem/cli/study.py`: studies that are listed, priced, run and continued."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.main_helpers import call
from tests.studies.study_folder_helpers import study_folder


def test_studies_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "in the folder experiments of a clone" in call("study", "list").output
    (tmp_path / "experiments").mkdir()
    study_folder(tmp_path / "experiments", "mine_in_a_list")
    study_folder(tmp_path / "experiments", "program_of_its_own", code="")
    listed = call("study", "list")
    assert listed.exit_code == 0, listed.output
    assert "mine_in_a_list: Is a canary memorised?" in listed.output
    assert "program_of_its_own" not in listed.output


def test_unknown_study_is_an_error() -> None:
    result = call("study", "check", "nonexistent_study")
    assert result.exit_code == 2
    assert "no such study" in result.output


@pytest.mark.slow
def test_study_is_priced_run_and_not_run_twice(tmp_path: Path) -> None:
    folder = study_folder(tmp_path, "mine_to_run")
    command = [str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1:2", "--set", "rounds=3"]
    checked = call("study", "check", *command)
    assert checked.exit_code == 0, checked.output
    assert "2 cells, 1 scenario, 0 finished before" in checked.output
    assert "not in this price: nothing of importance" in checked.output
    assert "Not all cells" in call("study", "run", *command, "--hours", "0", "--quiet").output
    assert not (folder / "gates.csv").exists()
    done = call("study", "run", *command)
    assert done.exit_code == 0, done.output
    assert (folder / "README.md").read_text().startswith("It is ")
    assert "a canary is memorised" in done.output
    again = call("study", "check", *command)
    assert "1 finished before" in again.output
    assert "everything is finished" in again.output
    assert call("study", "check", *command, "--only", "thrid").exit_code == 2
