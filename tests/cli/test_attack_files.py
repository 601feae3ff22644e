"""Tests of `fedmem/cli/attack_files.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.apps.attack import Known
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
