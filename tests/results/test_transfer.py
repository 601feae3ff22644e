"""A copy is verified, stays inside its folder, and is finished only when its list is there."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.errors import FolderError, RunError
from fedmem.results import transfer
from fedmem.results.transfer import LIST, pull, push, read_remote, renewing_list
from tests.results.read_helpers import entries, write

fsspec = pytest.importorskip("fsspec", reason="the extra remote is not installed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with a file in a folder of its own, and a hidden one."""
    folder = tmp_path / "runs" / "small" / "0123456789ab"
    write(folder)
    (folder / "more").mkdir()
    (folder / "more" / "page ü.html").write_bytes(b"x" * 3_000_000)
    (folder / ".hidden").write_text("no")
    return folder


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system in memory, emptied before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path, memory: Any) -> str:
    return "memory://store/run" if request.param == "memory" else f"file://{tmp_path / 'store' / 'run'}"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_list(system: Any, change: Any) -> None:
    """Changes the list of the copy in memory."""
    content = json.loads(system.cat_file("/store/run/checksums.json"))
    change(content)
    system.pipe_file("/store/run/checksums.json", json.dumps(content).encode())


def test_a_run_comes_back_byte_by_byte(run: Path, url: str, tmp_path: Path) -> None:
    sent = push(run, url)
    expected = {name: data for name, data in files(run).items() if name != ".hidden"}
    assert sent.num_files == len(expected)
    assert sent.num_bytes == sum(map(len, expected.values()))
    pull(url, tmp_path / "back")
    assert files(tmp_path / "back") == expected
    fedmem.read(tmp_path / "back")


def test_a_run_is_read_from_its_address(run: Path, url: str) -> None:
    push(run, url)
    remote, here = fedmem.read(url), fedmem.read(run)
    assert remote.path.name == "run"
    assert remote.measurements.equals(here.measurements)
    folder = remote.path
    assert folder.exists()
    del remote
    gc.collect()
    assert not folder.parent.exists()


def test_a_finished_copy_is_replaced_with_force_alone(run: Path, url: str, tmp_path: Path) -> None:
    push(run, url)
    with pytest.raises(FolderError, match="holds a finished copy; replace it with --force"):
        push(run, url)
    (run / "summary.json").write_text("{}")
    push(run, url, force=True)
    pull(url, tmp_path / "back")
    assert (tmp_path / "back" / "summary.json").read_text() == "{}"
    with pytest.raises(FolderError, match="exists already; replace it with --force"):
        pull(url, tmp_path / "back")
    pull(url, tmp_path / "back", force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(FolderError, match="is not replaced"):
        pull(url, tmp_path / "mine", force=True)
    assert entries(tmp_path / "mine") == ["notes"]


@pytest.mark.parametrize("moment", range(11))
@pytest.mark.parametrize("replaced", [False, True])
def test_an_interrupted_push_is_no_finished_run(
    moment: int, replaced: bool, run: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a kill before each file, and before the list: neither the copy nor its folder is a finished run."""
    if replaced:
        push(run, url)
    opened = 0
    system, _ = fsspec.core.url_to_fs(url)
    real = type(system).open

    def stop(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        nonlocal opened
        if mode == "wb":
            opened += 1
            if opened > moment:
                raise KeyboardInterrupt
        return real(self, path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "open", stop)
        with pytest.raises(KeyboardInterrupt):
            push(run, url, force=replaced)
    with pytest.raises(FolderError, match="holds no finished copy"):
        pull(url, tmp_path / "back")
    with pytest.raises(FolderError, match="holds no finished copy"):
        fedmem.read(url)
    assert not (tmp_path / "back").exists()
    if url.startswith("file") and moment < 10:  # at the last moment, all files but the list are there and verified
        with pytest.raises(FolderError, match="is no finished run"):
            fedmem.read(url.removeprefix("file://"))
    push(run, url)
    pull(url, tmp_path / "back")


def test_an_interrupted_pull_leaves_nothing(run: Path, memory: Any, tmp_path: Path) -> None:
    push(run, "memory://store/run")
    memory.rm_file("/store/run/more/page ü.html")
    with pytest.raises(RunError, match=r"pull from memory://store/run failed and is not finished: FileNotFoundError"):
        pull("memory://store/run", tmp_path / "new" / "back")
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_is_refused_on_both_ways(
    run: Path, memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, "memory://store/run")
    data = memory.cat_file("/store/run/more/page ü.html")
    for wrong in (b"y" + data[1:], data[:-1], data + b"x", b""):
        memory.pipe_file("/store/run/more/page ü.html", wrong)
        with pytest.raises(RunError, match=r"'more/page ü.html' in memory://store/run is damaged"):
            pull("memory://store/run", tmp_path / "back")
        assert not (tmp_path / "back").exists()
    real = transfer._upload

    def lose(system: Any, source: Path, root: str, name: str) -> Any:
        entry = real(system, source, root, name)
        system.pipe_file(f"{root}/{name}", b"lost")
        return entry

    monkeypatch.setattr(transfer, "_upload", lose)
    with pytest.raises(RunError, match="is damaged"):
        push(run, "memory://store/other")
    assert not memory.exists("/store/other/checksums.json")


HOSTILE = [
    "../x", "/etc/x", "a/../../x", "a//b", "./a", "", "a/", "..", "C:x", "a\\..\\x", "a\x00", "a\nb", ".hidden", "a/.x",
    "x" * 300, 7, None, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_write_nothing(name: Any, run: Path, memory: Any, tmp_path: Path) -> None:
    push(run, "memory://store/run")
    memory.pipe_file("/store/x", b"evil")
    change_list(memory, lambda content: content["files"][0].update(name=name))
    before = sorted(path.as_posix() for path in tmp_path.rglob("*"))
    with pytest.raises(RunError, match=rf"{LIST} in memory://store/run cannot be used: .*nothing was copied"):
        pull("memory://store/run", tmp_path / "back")
    assert sorted(path.as_posix() for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(schema=2),
        lambda content: content.update(files={"a": 1}),
        lambda content: content["files"][0].update(size=-1),
        lambda content: content["files"][0].update(size=True),
        lambda content: content["files"][0].update(sha256="0"),
        lambda content: content["files"][0].pop("sha256"),
        lambda content: content["files"].append({**content["files"][0], "name": content["files"][0]["name"].upper()}),
        lambda content: content.update(files=[item for item in content["files"] if item["name"] != "manifest.json"]),
        lambda content: content.update(files=[dict(content["files"][0], name=f"f{i}") for i in range(10_001)]),
        lambda content: content.update(more="x" * 4_000_000),
    ],
)
def test_a_wrong_list_writes_nothing(change: Any, run: Path, memory: Any, tmp_path: Path) -> None:
    push(run, "memory://store/run")
    change_list(memory, change)
    with pytest.raises(RunError, match="cannot be used"):
        pull("memory://store/run", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_links_and_unfinished_folders_are_not_pushed(run: Path, memory: Any, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="is no finished run"):
        push(tmp_path, "memory://store/run")
    (run / "secret").symlink_to("/etc/passwd")
    with pytest.raises(FolderError, match="secret is a link"):
        push(run, "memory://store/run")
    assert memory.store == {}


def test_no_message_holds_a_key(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> Any:
        raise OSError(f"403 for {url} (user me, password s3cr3t)")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    url = "https://me:s3cr3t@example.org/run?signature=abcdef"
    for call in (lambda: push(run, url), lambda: pull(url, tmp_path / "back"), lambda: read_remote(url)):
        with pytest.raises(RunError) as raised:
            call()
        assert "s3cr3t" not in str(raised.value)
        assert "abcdef" not in str(raised.value)
        assert raised.value.__suppress_context__
        assert "https://…@example.org/run?…" in str(raised.value)


def test_unknown_protocols_and_missing_packages_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="nowhere://x cannot be opened: Protocol not known"):
        push(run, "nowhere://x")
    before = entries(tmp_path)
    with pytest.raises(FolderError, match="cannot be opened"):
        fedmem.read("nowhere://x")
    assert entries(tmp_path) == before


def test_a_comparison_is_pulled_and_not_read_as_a_run(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "compare-0").mkdir()
    for name in ("series.json", "values.csv"):
        (tmp_path / "compare-0" / name).write_text("1")
    push(tmp_path / "compare-0", "memory://store/compare-0")
    pull("memory://store/compare-0", tmp_path / "back")
    assert files(tmp_path / "back") == {"series.json": b"1", "values.csv": b"1"}
    with pytest.raises(FolderError, match="is a comparison or sweep"):
        fedmem.read("memory://store/compare-0")


def test_files_drawn_again_in_a_copy_leave_it_whole(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    push(run, str(place))

    def draw() -> None:
        with renewing_list(place):
            (place / "report.html").write_text("again")
            (place / "more" / "page ü.html").write_text("again, too")
            raise KeyError  # the command ends with an error after it has written

    with pytest.raises(KeyError):
        draw()
    pull(str(place), tmp_path / "back")
    assert (tmp_path / "back" / "report.html").read_text() == "again"
    assert (tmp_path / "back" / "more" / "page ü.html").read_text() == "again, too"


def test_damage_is_still_found_after_another_file_is_renewed(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    push(run, str(place))
    (place / "more" / "page ü.html").write_text("damaged")
    with renewing_list(place):
        (place / "report.html").write_text("again")
    with pytest.raises(RunError, match="is damaged"):
        pull(str(place), tmp_path / "back")


def test_a_folder_without_a_list_gets_none(run: Path) -> None:
    with renewing_list(run):
        (run / "report.html").write_text("again")
    assert not (run / LIST).exists()
