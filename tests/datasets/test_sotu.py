"""Tests of `fedmem/datasets/sotu.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedmem.datasets import sotu
from fedmem.datasets.sotu import Sotu
from tests.datasets.texts_helpers import load
from tests.fetched.fetched_helpers import packed
from tests.narrowing import present
from tests.published import put_in_cache, said


def test_addresses_of_a_president_are_joined_by_year(tmp_path: Path) -> None:
    one = {"name": "B", "party": "none"}
    files = {f"package/data/{y}.json": json.dumps({**one, "year": y, "text": f"\x02in {y}"}) for y in (1791, 1790)}
    files["package/package.json"] = "{}"
    packed(tmp_path / "sotu.tgz", **{name: content.encode() for name, content in files.items()})
    sotu._convert(tmp_path)
    assert json.loads((tmp_path / "presidents.json").read_bytes()) == [["B", "none", "in 1790\nin 1791"]]


def test_presidents_have_a_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_cache("sotu", tmp_path, monkeypatch)
    data = load(Sotu(max_chars=2000))
    assert len(np.unique(present(data.natural))) == 20
    party = {int(owner): value for owner, value in zip(present(data.natural), data.sensitive["party"], strict=True)}
    names = sorted((f"p {k}" for k in range(24)), key=lambda name: (-len(said(int(name[2:]), 1)), name))[:20]
    assert [party[k] for k in range(20)] == ["ABC"[int(name[2:]) % 3] for name in sorted(names)]
