"""`fedmem export` prints the folder of the export, and the command that opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.exports import target_names
from tests.cli.main_helpers import call
from tests.sharing.sharing_helpers import finished_comparison, finished_run


def test_the_folder_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("export", str(finished_run()), "--to", "csv")
    assert result.exit_code == 0
    assert result.stdout == f"exports/csv/tiny/{finished_run().name}\n"
    assert Path(result.stdout.strip(), "measurements.csv").is_file()
    assert "Open it with: less exports/csv/tiny" in result.stderr
    again = call("export", str(finished_run()), "--to", "csv")
    assert (again.exit_code, again.stdout) == (2, "")
    assert "--force" in again.stderr
    assert call("export", str(finished_comparison()), "--to", "csv", "--out", "own").exit_code == 0
    assert (tmp_path / "own" / "differences.csv").is_file()


def test_values_that_series_leave_out_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    result = call("export", str(finished_run()), "--to", "tensorboard", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert "undefined or infinite values are no points" in result.stderr


def test_targets_are_listed_and_others_refused(tmp_path: Path) -> None:
    result = call("export", str(finished_run()), "--to", "xml")
    assert result.exit_code == 2
    assert all(f"'{name}'" in result.stderr for name in target_names())
    assert call("export", str(tmp_path), "--to", "csv").exit_code == 2
