"""Tests of `fedmem/cli/attack_files.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.apps.attack import Known
from fedmem.estimation.statistics import clopper_pearson
from tests.apps.attack_helpers import Spy, call, write_attack_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_attack_files()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, "not finite"),
        (None, "the update is zero everywhere"),
        ({"weight": torch.zeros(4, 3), "bias": torch.zeros(3)}, "'weight' has shape (4, 3), in the model (3, 4)"),
        ({"0.weight": torch.zeros(3, 4)}, "--model module:Class"),
        ({"weight": Spy()}, "holds more than weights"),
        (b"", "after.pt: is empty"),
        (b"damaged", "or is damaged"),
    ],
)
def test_files_that_nothing_can_be_read_from_are_refused(given: Any, said: str, folder: Path) -> None:
    after = Path("after.pt")
    if isinstance(given, bytes):
        after.write_bytes(given)
    elif said == "not finite":
        torch.save({name: value * torch.nan for name, value in given.items()}, after)
    else:
        torch.save(torch.load("before.pt", weights_only=True) if given is None else given, after)
    code, _, error = call("--out", "found")
    assert said in error
    assert code == 2
    assert not (folder / "found").exists()


def test_attack_json_holds_all_settings_files_and_versions(folder: Path) -> None:
    np.savez("others.npz", np.full((3, 4), 0.25, dtype=np.float32))
    scored = ("--truth", "truth.npz", "--gallery", "others.npz", "--labels", "0,2", "--seed", "7")
    assert call(*scored, "--set", "attack.steps=3", "--set", "model.width=4", "--out", "found")[0] == 0
    found = json.loads((folder / "found" / "attack.json").read_text())
    assert found["attack"]["kind"] == "inverting_gradients"
    assert found["attack"]["steps"] == 3
    assert found["model"] == {"kind": "simple:Net", "width": 4}
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found["known"].items()}
    assert Known(**known) == Known(input_shape=(4,), num_classes=3, num_images=2, lr=0.5, labels=(0, 2))
    assert (found["seed"], found["gradient"], found["gallery"]) == (7, False, 3)
    assert {found[name]["file"] for name in ("before", "after", "truth", "others")} == {
        "before.pt", "after.pt", "truth.npz", "others.npz"
    }  # fmt: skip
    assert found["versions"]["fedmem"]


def test_identified_has_its_chance_and_exact_interval(folder: Path) -> None:
    np.savez("others.npz", np.full((39, 4), 0.25, dtype=np.float32))
    scored = (
        "--truth",
        "truth.npz",
        "--gallery",
        "others.npz",
        "--set",
        "attack.steps=3",
        "--controls",
        "0",
        "--out",
        "found",
    )
    _, said, _ = call(*scored)
    count = int(said.partition("identified ")[2].split()[0])
    low, high = clopper_pearson(count, 2)
    assert "(by chance about 0.05 of 2)" in said
    assert f"share identified {count / 2:.2f} [{low:.2f}, {high:.2f}] (exact binomial" in said


def test_attacks_that_recover_nothing_say_so(folder: Path) -> None:
    _, said, _ = call("--attack", "grey", "--out", "grey")
    assert "inputs and labels were not recovered: this control reads nothing of the update" in said
    assert "labels 0, 1" not in said
    assert "reads nothing" in json.loads((folder / "grey" / "attack.json").read_text())["not_recovered"]
    code, said, _ = call("--attack", "linear_layer", "--steps", "2", "--out", "linear")
    assert code == 0
    assert "not recovered: nothing was found that is exact" in said


def test_unknown_order_names_the_remedies_of_the_command(folder: Path) -> None:
    unrolled = ("--attack", "unrolled", "--set", "attack.steps=2")
    code, _, error = call(*unrolled, "--out", "found")
    assert code == 2
    assert "in commands attack.order=drawn" in error
    assert call(*unrolled, "attack.order=drawn", "--out", "drawn")[0] == 0
    assert call(*unrolled, "--labels", "2,0", "--in-order", "--out", "ordered")[0] == 0
