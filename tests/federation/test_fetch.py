"""Tests of `fedmem/federation/fetch.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.errors import ScenarioError
from fedmem.federation import fetch
from tests.fetched.fetched_helpers import call
from tests.published import on_disk, pretend


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'mnist5k'"):
        fetch.fetch("mnist5")


def test_every_published_data_set_is_found_by_its_kind() -> None:
    from fedmem.scenario import catalogue

    for name, item in fetch.published_datasets().items():
        assert vars(catalogue.load("dataset", name))["published"] is item
        assert item.licence
        assert all(re.fullmatch(r"[0-9a-f]{64}", checksum) for checksum in item.files.values())
        assert all(source.description for source in item.sources)
        if item.convert is None:
            assert all(set(source.files) == set(item.files) for source in item.sources)


def test_fetch_prints_the_folder_and_lists_the_state(
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
