"""Finished runs by path and by id."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedmem.cli.folders import finished_folder


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("runs/a/0123456789ab", "runs/b/0123ffffffff", "abcdef012345", "runs/c/.0123aaaaaaaa.shards"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").write_text("{}")
    (tmp_path / "runs/d/99990000aaaa").mkdir(parents=True)  # not finished
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("0123456789ab", "runs/a/0123456789ab"),
        ("01234", "runs/a/0123456789ab"),
        ("abcd", "abcdef012345"),
        ("runs/b/0123ffffffff", "runs/b/0123ffffffff"),
        ("0123", "0123"),  # two begin so
        ("012", "012"),
        ("99990000aaaa", "99990000aaaa"),
        ("none", "none"),
    ],
)
def test_an_id_stands_for_its_folder(text: str, folder: str) -> None:
    assert finished_folder(text) == Path(folder)


def test_a_folder_of_that_name_wins(tmp_path: Path) -> None:
    (tmp_path / "01234").mkdir()
    assert finished_folder("01234") == Path("01234")


def test_a_name_stands_for_its_newest_run(tmp_path: Path) -> None:
    """So `fedmem top NAME` goes on working after a second run, where a pattern would give two folders."""
    second = tmp_path / "runs/a/fedcba987654"
    second.mkdir()
    (second / "manifest.json").write_text("{}")
    os.utime(tmp_path / "runs/a/0123456789ab/manifest.json", (1, 1))
    for text in ("a", "runs/a", "runs/a/"):
        assert finished_folder(text) == Path("runs/a/fedcba987654")
    os.utime(second / "manifest.json", (0, 0))
    assert finished_folder("a") == Path("runs/a/0123456789ab")
    (tmp_path / "runs/a/series.json").write_text("{}")
    assert finished_folder("runs/a") == Path("runs/a"), "the folder of a study"
    assert finished_folder("d") == Path("d"), "no finished run"
