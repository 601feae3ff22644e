"""Weights of runs, files and folders are found by their path, and checked before they are used."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import fedmem
from fedmem.errors import ComponentError
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.weights.origins import find_origin, newest_run
from tests.tiny import tiny

SAVED = {"models": {"rounds": [0, -1], "levels": ["global"], "runs": 2}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trains its last layer alone and saved aggregates of two runs."""
    folder = tmp_path_factory.mktemp("runs")
    return run(tiny(name="pre", rounds=1, freeze=["hidden1.*"], save=SAVED, observe={"levels": ["global"]}), out=folder)


def test_the_aggregate_of_a_run_comes_with_its_frozen_part(finished: Path) -> None:
    frozen = build(tiny(freeze=["hidden1.*"])).frozen
    for number in (0, 1):
        origin = find_origin(str(finished), number=number)
        assert (origin.round, origin.number) == (1, number)
        weights = origin.read()
        (model,) = fedmem.read(finished).models(level="global", round_number=1, run=number)
        assert set(weights) == {"hidden1.weight", "hidden1.bias", "output.weight", "output.bias"}
        assert all(torch.equal(weights[name], value) for name, value in {**frozen, **model.params}.items())
    assert {file.name for file in origin.files} == {"round-1-global.safetensors", "frozen.safetensors"}


def test_rounds_count_from_the_last_saved_one(finished: Path) -> None:
    assert [find_origin(str(finished), number).round for number in (None, -1, -2, 0, 1)] == [1, 1, 0, 0, 1]
    for number in (2, -3):
        with pytest.raises(ComponentError, match=r"choose from: 0, 1") as caught:
            find_origin(str(finished), number)
        assert caught.value.path == "initial_weights.round"
    with pytest.raises(ComponentError, match=r"no aggregate of run 2 in round 1; choose from: 0, 1"):
        find_origin(str(finished), number=2).read()


def test_the_newest_run_of_a_folder_counts(finished: Path, tmp_path: Path) -> None:
    assert newest_run(finished) == finished
    assert find_origin(str(finished.parent)).run == finished
    for age, name in ((10, "old"), (5, "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
        os.utime(tmp_path / name / "manifest.json", (1000 - age, 1000 - age))
    assert newest_run(tmp_path) == tmp_path / "new"
    with pytest.raises(ComponentError, match=r"new stored no aggregates; run it again with save="):
        find_origin(str(tmp_path))


@pytest.mark.parametrize("name", ["round-1-global.safetensors", "frozen.safetensors"])
def test_a_changed_file_of_a_run_is_refused(name: str, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "models").mkdir(parents=True)
    for file in ("manifest.json", "models/round-1-global.safetensors", "models/frozen.safetensors"):
        (copy / file).write_bytes((finished / file).read_bytes())
    find_origin(str(copy)).read()
    content = bytearray((copy / "models" / name).read_bytes())
    content[-1] ^= 1
    (copy / "models" / name).write_bytes(content)
    with pytest.raises(ComponentError, match="SHA-256 differs") as caught:
        find_origin(str(copy)).read()
    assert caught.value.path == "initial_weights.from"


def test_a_manifest_names_no_file_outside_of_its_run(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "outside.safetensors")
    (tmp_path / "run").mkdir()
    entry = {"round": "../../outside", "level": "global", "models": 1, "bytes": 1, "sha256": ""}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"models": [entry]}))
    with pytest.raises(ComponentError, match="is damaged"):
        find_origin(str(tmp_path / "run"))
    (tmp_path / "run" / "manifest.json").write_text("[")
    with pytest.raises(ComponentError, match="is damaged"):
        find_origin(str(tmp_path / "run"))


def test_a_folder_of_a_model_has_all_its_parts(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "model-2.safetensors")
    origin = find_origin(str(tmp_path))
    assert set(origin.read()) == {"a", "b"}
    assert origin.title == f"{tmp_path} (model-1.safetensors)"


def test_what_is_no_origin_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.bin").write_bytes(b"pickle")
    for text, said in (("absent", "does not exist"), ("empty", r"no file \*\.safetensors")):
        with pytest.raises(ComponentError, match=said) as caught:
            find_origin(str(tmp_path / text))
        assert caught.value.path == "initial_weights.from"
    file = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(1)}, file)
    assert find_origin(str(file)).read()["w"].shape == (1,)
    for name, arguments in (("round", {"round_number": 1}), ("run", {"number": 0})):
        with pytest.raises(ComponentError, match=f"leave {name} out"):
            find_origin(str(file), **arguments)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"w": Path("trap")}, tmp_path / "evil.pt")
    with pytest.raises(ComponentError, match="reading them runs code"):
        find_origin(str(tmp_path / "evil.pt")).read()
