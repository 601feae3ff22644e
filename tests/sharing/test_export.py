"""An export is there as a whole or not at all, replaces nothing but exports, and leaves its source alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.errors import ComponentError, FolderError, RunError
from fedmem.exports.csv import Csv
from fedmem.sharing.export import MARK, content_of, export
from tests.results.read_helpers import entries
from tests.sharing.sharing_helpers import bytes_of, finished_comparison, finished_run, finished_sweep


def test_the_default_place_has_target_name_and_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_run()
    before = bytes_of(run)
    exported = fedmem.export(run, "csv")
    assert exported.folder == Path("exports/csv/tiny") / run.name
    assert exported.left_out == 0
    assert json.loads((exported.folder / MARK).read_text())["of"] == run.name
    assert bytes_of(run) == before


def test_an_export_is_replaced_with_force_alone(tmp_path: Path) -> None:
    place = tmp_path / "out"
    export(finished_run(), "csv", out=place)
    before = bytes_of(place)
    with pytest.raises(FolderError, match="exists already; replace it with --force"):
        export(finished_run(), "csv", out=place)
    assert bytes_of(place) == before
    export(finished_comparison(), "csv", out=place, force=True)
    assert (place / "trades.csv").exists()
    assert not (place / "evidence.csv").exists()


def test_force_replaces_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("all my work")
    for place in (tmp_path / "mine", tmp_path / "mine" / "notes"):
        with pytest.raises(FolderError, match="is no export, so it is not replaced"):
            export(finished_run(), "csv", out=place, force=True)
    assert (tmp_path / "mine" / "notes").read_text() == "all my work"


def test_a_target_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Csv, content: Any, folder: Path, place: Path) -> None:
        (folder / "half.csv").write_text("1")
        raise TypeError("no\nluck")

    monkeypatch.setattr(Csv, "write", fail)
    with pytest.raises(RunError, match="export to csv failed, and nothing was written: TypeError: no luck"):
        export(finished_run(), "csv", out=tmp_path / "new" / "out")
    assert entries(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Csv, content: Any, folder: Path, place: Path) -> None:
        (folder / "half.csv").write_text("1")
        raise KeyboardInterrupt

    monkeypatch.setattr(Csv, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        export(finished_run(), "csv", out=tmp_path / "out")
    assert entries(tmp_path) == []


def test_what_is_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is no finished run"):
        export(tmp_path, "csv", out=tmp_path / "out")
    with pytest.raises(ComponentError, match="choose from"):
        export(finished_run(), "xml", out=tmp_path / "out")
    assert entries(tmp_path) == []


def test_runs_comparisons_and_sweeps_have_content() -> None:
    assert content_of(finished_run()).title == "tiny"
    assert content_of(finished_comparison()).id == finished_comparison().name
    assert [table.name for table in content_of(finished_sweep()).tables] == ["results"]
