"""Tests of `fedmem/datasets/shakespeare.py`."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from fedmem.datasets import shakespeare
from fedmem.datasets.shakespeare import Shakespeare
from fedmem.errors import ComponentError
from fedmem.fetched import files
from tests.datasets.texts_helpers import load
from tests.fetched.fetched_helpers import packed
from tests.narrowing import present


def test_shakespeare_needs_nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path))
    data = load(Shakespeare(clients=3))
    assert len(np.unique(present(data.natural))) == 3
    assert any("To be, or not to be" in writer.text for writer in Shakespeare()._authors())
    with pytest.raises(ComponentError, match="fedmem fetch shakespeare"):
        load(Shakespeare(clients=101))


def test_damaged_package_file_is_an_error_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shakespeare.json.xz"
    path.write_bytes(lzma.compress(b"[]"))
    monkeypatch.setattr(shakespeare, "_SHIPPED", path)
    with pytest.raises(ComponentError, match=r"shakespeare\.json\.xz is damaged"):
        load(Shakespeare())


def test_shipped_roles_are_the_first_of_the_fetched_ones() -> None:
    folder = files.cache_folder() / "shakespeare"
    if not (folder / "roles.json").is_file():
        pytest.skip("shakespeare is not fetched here")
    roles = json.loads(files.read_verified(Shakespeare.published, "roles.json"))
    assert shakespeare._pack(roles[:100]) == shakespeare._packaged_roles()


def test_shakespeare_without_shipped_file_reads_fetched_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shakespeare"
    folder.mkdir()
    roles = [["play", f"Role {i}", f"words of role {i} " * 40] for i in range(103)]
    (folder / "roles.json").write_bytes(shakespeare._pack(roles))
    monkeypatch.setattr(shakespeare, "read_verified", lambda published, name: (folder / name).read_bytes())
    monkeypatch.setattr(shakespeare, "_SHIPPED", tmp_path / "nothing.xz")
    assert [writer.name for writer in Shakespeare(clients=3)._authors()] == [f"play, Role {i}" for i in range(100)]
    assert len(Shakespeare(clients=101)._authors()) == 103


def test_speeches_are_found_and_directions_left_out(tmp_path: Path) -> None:
    speeches = ["ACT I.", "Ham.\nTo be, [Aside.] or\nnot.", "Enter Ghost.\nx", "Ghost.\nMark me.", "Ham.\nI will."]
    play = "\n\n".join(speeches).replace("\n", "\r\n").encode()
    packed(tmp_path / "shakespeare.tar.gz", **{"a/hamlet_gut.txt": play, "a/hamlet_gut_f.txt": b"Ham.\nno"})
    shakespeare._convert(tmp_path)
    assert json.loads((tmp_path / "roles.json").read_bytes()) == [
        ["hamlet", "Ham", "To be,  or\nnot.\nI will."],
        ["hamlet", "Ghost", "Mark me."],
    ]
