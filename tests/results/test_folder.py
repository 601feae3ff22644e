"""Tests of `fedmem/results/folder.py`."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedmem.errors import FolderError, RunError
from fedmem.results.folder import check_place, is_finished, writing
from fedmem.results.read import read
from tests.results.read_helpers import entries, write


def test_force_replaces_a_run_once_the_new_one_is_complete(tmp_path: Path) -> None:
    for executor in ("stacked", "one_by_one"):
        write(tmp_path / "a", manifest={"executor": executor}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "one_by_one"


WRITER = """
import sys, time
from pathlib import Path
import fedmem.results.read
from tests.results.test_read import write

def stop(*_):
    print("nearly", flush=True)
    time.sleep(60)

fedmem.results.write._write_manifest = stop
write(Path(sys.argv[1]))
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run whose first writer was killed with nearly everything written."""
    root = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a")], stdout=subprocess.PIPE, cwd=root, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "nearly\n"
    with writing(tmp_path / "a"):  # a second writer of the same run leaves the living one alone
        assert len(entries(tmp_path)) == 2
    shutil.rmtree(tmp_path / "a")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    return tmp_path / "a"


def test_killed_write_leaves_nothing_that_looks_finished(killed: Path) -> None:
    (left,) = entries(killed.parent)
    assert left.startswith(".a.partial-")
    with pytest.raises(RunError, match="no finished run"):
        read(killed)
    with writing(killed) as folder:
        assert entries(killed.parent) == [folder.name]
    shutil.rmtree(killed)
    write(killed)
    assert entries(killed.parent) == ["a"]
    assert len(read(killed).measurements) == 3


def test_a_run_killed_between_the_two_renames_is_put_back(killed: Path) -> None:
    (left,) = killed.parent.iterdir()
    write(killed)
    killed.rename(left.with_name(left.name.replace("partial", "replaced")))
    with writing(killed, force=True):
        assert read(killed).manifest["executor"] == "stacked"
    assert entries(killed.parent) == ["a"]
    assert entries(killed) == []


def test_a_partial_folder_of_another_host_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".a.partial-1@elsewhere").mkdir()
    write(tmp_path / "a")
    assert entries(tmp_path) == [".a.partial-1@elsewhere", "a"]


def test_other_system_errors_are_not_reported_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("what", ["file", "dangling", "inside a file", "incomplete", "long"])
@pytest.mark.parametrize("force", [False, True])
def test_unusable_place_is_an_error_before_any_work(tmp_path: Path, what: str, force: bool) -> None:
    folder = tmp_path / "runs" / "a"
    if what == "long":
        folder = tmp_path / ("x" * 300) / "a"
    elif what == "inside a file":
        (tmp_path / "runs").write_text("mine")
    else:
        folder.parent.mkdir()
        if what == "file":
            folder.write_text("mine")
        elif what == "dangling":
            folder.symlink_to(tmp_path / "nowhere")
        elif what == "incomplete":
            folder.mkdir()
            (folder / "evidence.parquet").write_text("half")
    before = sorted(map(str, tmp_path.rglob("*")))
    if what == "incomplete" and force:
        write(folder, force=True)
        assert read(folder).manifest["executor"] == "stacked"
        return
    with pytest.raises(FolderError, match=r"move it away|--out"):
        check_place(folder, force=force)
    with pytest.raises(FolderError):
        write(folder, force=force)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_an_empty_folder_is_no_finished_run_and_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not is_finished(tmp_path / "a")
    write(tmp_path / "a")
    assert is_finished(tmp_path / "a")
    assert entries(tmp_path) == ["a"]


def test_trying_a_place_leaves_nothing_and_needs_no_folder(tmp_path: Path) -> None:
    check_place(tmp_path / "x" / "y" / "a")
    assert entries(tmp_path) == []


def test_force_replaces_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "old")
    (tmp_path / "a").symlink_to(tmp_path / "old")
    write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a", "old"]
    assert [read(tmp_path / name).manifest["executor"] for name in ("a", "old")] == ["one_by_one", "stacked"]


def test_a_rename_that_fails_puts_the_old_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "stacked"
