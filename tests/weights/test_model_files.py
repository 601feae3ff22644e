"""Tests of `fedmem/weights/model_files.py`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from fedmem.contracts.arrays import Params
from fedmem.errors import RunError
from fedmem.weights.model_files import (
    ModelsOfRound,
    StoredModels,
    describe_file,
    join_files,
    open_models,
    stored_models,
    write_models,
)

MODELS = ModelsOfRound(
    round=4, level="local", run=(0, 0, 1, 1, 2), client=(0, 3, 1, 2, 5), num_examples=(9,) * 5, clients=((),) * 5
)


def made() -> list[Params]:
    rng = torch.Generator().manual_seed(0)
    return [
        {
            "second.weight": torch.randn(3, 2, generator=rng),
            "first.bias": torch.randn(2, generator=rng),
            "größe": torch.tensor(1.5) * number,
            "wide": torch.randn(3, dtype=torch.float64, generator=rng),
            "half": torch.randn(5, generator=rng).half(),
        }
        for number in range(5)
    ]


def written(file: Path, models: ModelsOfRound = MODELS, start: int = 0) -> StoredModels:
    params = made()[start : start + len(models)]
    write_models(file, models, params[0], lambda name: (each[name] for each in params))
    return StoredModels(**describe_file(file, models))


def part(start: int, stop: int) -> ModelsOfRound:
    columns = {name: values[start:stop] for name, values in asdict(MODELS).items() if name not in ("round", "level")}
    return ModelsOfRound(round=4, level="local", **columns)


def test_bytes_are_those_that_safetensors_writes(tmp_path: Path) -> None:
    written(tmp_path / "x")
    about = json.dumps({**asdict(MODELS), "names": list(made()[0])}, separators=(",", ":"), ensure_ascii=False)
    stacked = {name: torch.stack([params[name] for params in made()]) for name in made()[0]}
    assert (tmp_path / "x").read_bytes() == save(stacked, metadata={"fedmem": about})


def test_models_come_back_to_the_last_bit_in_their_order(tmp_path: Path) -> None:
    stored = written(tmp_path / "x")
    with open_models(tmp_path / "x", stored, like=made()[0]) as content:
        assert content.models == MODELS
        for position, params in enumerate(made()):
            read = content.params(position)
            assert list(read) == list(params)
            assert all(torch.equal(read[name], params[name]) for name in params)
        assert [each["wide"].tolist() for each in content.several(1, 4)] == [m["wide"].tolist() for m in made()[1:4]]


@pytest.mark.parametrize("cuts", [(0, 5), (0, 1, 5), (0, 2, 3, 5)])
def test_parts_joined_are_the_whole(cuts: tuple[int, ...], tmp_path: Path) -> None:
    parts = []
    for start, stop in pairwise(cuts):
        parts.append(tmp_path / f"part-{start}")
        written(parts[-1], part(start, stop), start)
    written(tmp_path / "whole")
    assert join_files(parts, tmp_path / "joined") == MODELS
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def damage(file: Path, how: str) -> None:
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    else:
        changed = {"flipped": bytes([*data[:-1], data[-1] ^ 1]), "shorter": data[:-1], "empty": b"", "text": b"x" * 99}
        file.write_bytes(changed[how])


@pytest.mark.parametrize("how", ["gone", "flipped", "shorter", "empty", "text", "a folder"])
def test_a_damaged_file_is_refused_by_name(how: str, tmp_path: Path) -> None:
    file = tmp_path / "round-4-local.safetensors"
    stored = written(file)
    damage(file, how)
    with (
        pytest.raises(RunError, match=r"round-4-local.safetensors (is missing|is damaged|cannot be used)"),
        open_models(file, stored),
    ):
        pass


@pytest.mark.parametrize("how", ["shorter", "empty", "text"])
def test_damage_is_found_without_a_checksum_too(how: str, tmp_path: Path) -> None:
    written(tmp_path / "x")
    damage(tmp_path / "x", how)
    with pytest.raises(RunError, match=r"/x is damaged"), open_models(tmp_path / "x"):
        pass


LIKE = made()[0]


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({**LIKE, "more": torch.zeros(1)}, "parameter 'more' is missing"),
        ({name: value for name, value in LIKE.items() if name != "half"}, "'half' is no parameter of the model"),
        ({**LIKE, "wide": torch.zeros(4, dtype=torch.float64)}, r"'wide' has shape \(3,\), in the model \(4,\)"),
        ({**LIKE, "half": torch.zeros(5)}, "'half' is of type F16, in the model torch.float32"),
    ],
)
def test_models_of_another_network_are_refused(like: Params, message: str, tmp_path: Path) -> None:
    stored = written(tmp_path / "x")
    with pytest.raises(RunError, match=message), open_models(tmp_path / "x", stored, like=like):
        pass


HEADER = {**asdict(MODELS), "names": ["w"]}


@pytest.mark.parametrize(
    ("header", "weights"),
    [
        (None, (5, 2)),
        ({"fedmem": "["}, (5, 2)),
        ({"fedmem": json.dumps({**HEADER, "run": [0, 1]})}, (5, 2)),
        ({"fedmem": json.dumps({**HEADER, "run": ["../x"] * 5})}, (5, 2)),
        ({"fedmem": json.dumps({**HEADER, "level": "../../x"})}, (5, 2)),
        ({"fedmem": json.dumps({**HEADER, "names": ["w", "v"]})}, (5, 2)),
        ({"fedmem": json.dumps(HEADER)}, (4, 2)),
        ({"fedmem": "[" * 100_000}, (5, 2)),
    ],
)
def test_a_file_of_somebody_else_is_refused(header: Any, weights: tuple[int, int], tmp_path: Path) -> None:
    save_file({"w": torch.zeros(weights)}, tmp_path / "x", metadata=header)
    with pytest.raises(RunError, match=r"/x cannot be used"), open_models(tmp_path / "x"):
        pass


def test_a_file_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    stored = written(tmp_path / "x")
    other = written(tmp_path / "y", replace(MODELS, round=2))
    moved = replace(stored, bytes=other.bytes, sha256=other.sha256)
    with (
        pytest.raises(RunError, match="5 models of round 2, local, should be 5 of round 4, local"),
        open_models(tmp_path / "y", moved),
    ):
        pass


def test_an_error_of_the_reader_stays_its_own(tmp_path: Path) -> None:
    stored = written(tmp_path / "x")
    with pytest.raises(ValueError, match="mine"), open_models(tmp_path / "x", stored):
        raise ValueError("mine")


GOOD = {"round": 4, "level": "local", "models": 5, "bytes": 9, "sha256": "0"}


@pytest.mark.parametrize(
    "entries",
    [
        [{**GOOD, "round": "../../4"}],
        [{**GOOD, "level": "../local"}],
        [{**GOOD, "round": True}],
        [{"round": 4}],
        [GOOD, GOOD],
        [3],
        7,
    ],
)
def test_names_of_files_are_never_read_from_a_manifest(entries: Any) -> None:
    with pytest.raises(RunError, match=r"manifest.json is damaged"):
        stored_models({"models": entries}, Path("manifest.json"))
    (good,) = stored_models({"models": [GOOD]}, Path("manifest.json"))
    assert good.name == "round-4-local.safetensors"


def test_torch_reads_the_file_as_well(tmp_path: Path) -> None:
    written(tmp_path / "x")
    assert load_file(tmp_path / "x")["wide"].shape == (5, 3)
