"""Fetched files are the published ones or none: sources in order, nothing half done, no changed byte."""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.datasets.fashion_mnist import FashionMnist
from fedmem.datasets.mnist5k import Mnist5k
from fedmem.errors import ComponentError, FedmemError
from fedmem.federation import fetch
from fedmem.fetched import files
from fedmem.fetched.sources import (
    Web,
)
from tests.fetched.fetched_helpers import everything_in
from tests.published import made_files, on_disk, pretend, put_in_cache


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
    assert heard[2:] == ["folder good …", "licence: CC BY-SA 3.0"]
    assert {name: (folder / name).read_bytes() for name in made_files("mnist5k")} == made_files("mnist5k")
    assert everything_in(cache) == sorted(f"mnist5k/{name}" for name in made_files("mnist5k"))


def test_failure_of_all_sources_lists_each_cause(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Web(description="nowhere", files={name: (tmp_path / name).as_uri() for name in made_files("adult")})
    wrong = changed(on_disk("adult", tmp_path / "wrong"), tmp_path / "wrong", "adult.test")
    item = pretend("adult", monkeypatch, missing, wrong)
    with pytest.raises(FedmemError, match="any of its 2 sources") as caught:
        fetch.fetch("adult")
    assert re.search(r"\n  nowhere: .*No such file", str(caught.value))
    assert re.search(r"\n  folder wrong: its adult.test is not the published one \(sha256 \w{64}", str(caught.value))
    assert everything_in(cache) == []
    assert files.state(item) == "missing"


def test_a_source_that_forgets_a_file_is_no_source(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = on_disk("mnist5k", tmp_path / "some")
    some = replace(whole, files={"images-idx3-ubyte": whole.files["images-idx3-ubyte"]})
    pretend("mnist5k", monkeypatch, some)
    with pytest.raises(FedmemError, match=r"labels-idx1-ubyte is not the published one \(sha256 of no file"):
        fetch.fetch("mnist5k")


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
    assert files.state(item) == "missing"
    with pytest.raises(ComponentError, match="run: fedmem fetch fashion_mnist"):
        FashionMnist().load(np.random.default_rng(0))


def test_killed_download_leaves_nothing_that_looks_complete(cache: Path) -> None:
    code = (
        "import os, pathlib\nfrom fedmem.fetched import files as fetching\n"
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
    assert files.state(item) == "missing"


def test_a_failed_second_fetch_keeps_the_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("adult", cache, monkeypatch)
    wrong = changed(on_disk("adult", tmp_path / "wrong"), tmp_path / "wrong", "adult.data")
    item = pretend("adult", monkeypatch, wrong)
    with pytest.raises(FedmemError):
        fetch.fetch("adult", force=True)
    assert files.state(item) == "whole"


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
        assert files.state(item) == "damaged"
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


# The table of what can be fetched


# The command


# What lies in the cache of whoever runs the tests


@pytest.mark.parametrize(
    ("kind", "shape"), [("fashion_mnist", (1, 28, 28)), ("mnist5k", (1, 28, 28)), ("adult", (93,))]
)
def test_real_files_where_they_have_been_fetched(kind: str, shape: tuple[int, ...]) -> None:
    from fedmem.scenario import catalogue

    cls: Any = catalogue.load("dataset", kind)
    folder = files.cache_folder() / kind
    if not all((folder / file).is_file() for file in cls.published.files):
        pytest.skip(f"{kind} is not fetched here")
    data = cls(rows=500, test=100).load(np.random.default_rng(0))
    assert data.train.inputs.shape == (500, *shape)
    assert (
        hashlib.sha256(files.read_verified(cls.published, file := next(iter(cls.published.files)))).hexdigest()
        == (cls.published.files[file])
    )
