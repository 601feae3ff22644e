"""Tests of `fedmem/execution/archives.py`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fedmem.execution.archives import pack, unpack


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x.bin").write_bytes(bytes(range(256)))
    (tmp_path / "a" / "y").write_text("")
    packed = pack(tmp_path / "a")
    unpack(packed, tmp_path / "b")
    assert sorted(p.relative_to(tmp_path / "b").as_posix() for p in (tmp_path / "b").rglob("*") if p.is_file()) == [
        "deep/x.bin",
        "y",
    ]
    assert pack(tmp_path / "b") == packed


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "deep/../../out"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    if name.startswith("/"):
        unpack(stream.getvalue(), tmp_path / "in")  # the leading slash is left out
        assert (tmp_path / "in" / "tmp" / "out").is_file()
        return
    with pytest.raises(tarfile.TarError):
        unpack(stream.getvalue(), tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_damage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(tarfile.TarError):
        unpack(b"no archive at all", tmp_path)
