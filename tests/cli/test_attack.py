"""Tests of `fedmem/cli/attack.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.apps.attack_helpers import call, write_attack_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_attack_files()
    return tmp_path


def test_the_command_writes_what_it_found(folder: Path) -> None:
    code, said, _ = call("--truth", "truth.npz", "--set", "attack.steps=50", "--out", "found")
    assert code == 0
    assert "granted to the adversary: the model before, the update, the learning rate" in said
    found = json.loads((folder / "found" / "attack.json").read_text())
    assert found["clients"] == 1
    assert len(found["scores"]) == 2
    assert "identified" not in found["scores"][0], "without a gallery nobody is identified"
    with np.load(folder / "found" / "reconstruction.npz", allow_pickle=False) as arrays:
        assert arrays["inputs"].shape == (2, 4)
    again = call("--out", "found")
    assert again[0] == 2
    assert "--force" in again[2]
    assert call("--out", "found", "--force", "--set", "attack.steps=2")[0] == 0


def test_the_same_command_gives_the_same_files(folder: Path) -> None:
    for name in ("one", "two"):
        assert call("--truth", "truth.npz", "--set", "attack.steps=20", "--out", name)[0] == 0
    for name in ("attack.json", "sheet.png"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--shape", "4,x"), "--shape: should be whole numbers"),
        (("--shape", "0"), "at least 1"),
        (("--labels", "one"), "--labels"),
        (("--mode", "test"), "--mode: should be train or eval"),
        (("--mean", "a", "--std", "1"), "--mean"),
        (("--attack", "dgl"), "unknown kind 'dgl'"),
        (("--attack", "lira"), "is no reconstruction attack"),
        (("--set", "attack.stepz=3"), "attack.stepz"),
        (("--set", "attack.steps=0"), "attack.steps"),
        (("--set", "client.lr=0.1"), "is no field of model or attack"),
        (("--set", "model.wide=3"), "unknown key (did you mean 'width'?)"),
        (("--set", "model.width=5"), "'weight' has shape"),
        (("--model", "simple:Nett"), "did you mean 'Net'"),
        (("--model", "nowhere:Net"), "importing 'nowhere' failed"),
        (("--model", "tabular_mlp"), "columns of a table"),
        (("--truth", "absent.npz"), "no such file"),
        (("--truth", "simple.py"), "no .npz of numbers"),
        (("--lr", "0"), "lr must be above 0"),
        (("--lr", "-1"), "lr must be above 0"),
        (("--lr", "nan"), "lr must be above 0"),
        (("--labels", "3,55"), "label 3 is none of 0 .. 2"),
        (("--labels", "1"), "1 labels for 2 images"),
        (("--batch-size", "0"), "batch_size must be at least 1"),
        (("--batch-size", "5"), "batch_size 5 is more than the 2 images"),
        (("--mean", "0.5", "--std", "0"), "std above 0"),
        (("--mean", "0.5"), "given together"),
        (("--mean", "0,0", "--std", "1,1"), "one for each channel"),
        (("--in-order",), "give labels as well"),
        (("--shape", "5"), "cannot be called on inputs of shape (5,)"),
        (("--classes", "4"), "for 4 classes"),
        (("--truth", "three.npz"), "truth: inputs have shape (3,)"),
        (("--truth", "large.npz"), "truth: inputs must lie in [0, 1]"),
        (("--truth", "nothing.npz"), "truth: holds no inputs"),
        (("--truth", "many.npz"), "truth: 4 inputs, but 2 shaped the update"),
        (("--truth", "truth.npz", "--gallery", "truth.npz"), "gallery: holds 2 of the 2 true inputs"),
        (("--truth", "truth.npz", "--gallery", "many.npz"), "gallery: holds 2 of the 2 true inputs"),
        (("--model", "simple:Dropped"), "--mode eval"),
    ],
)
def test_wrong_options_of_attack_are_errors_with_exit_code_2(more: tuple[str, ...], said: str, folder: Path) -> None:
    code, _, error = call(*more, "--out", "found")
    assert said in error
    assert code == 2
    assert not (folder / "found").exists()
    assert "Traceback" not in error


def test_attack_into_a_used_folder_needs_force(folder: Path) -> None:
    assert call("--set", "attack.steps=2", "--out", "found")[0] == 0
    code, _, error = call("--out", "found")
    assert code == 2
    assert "found exists already, and holds a finished attack; replace it with --force" in error
    assert "--out" in error


def test_attack_without_gallery_reports_no_identification(folder: Path) -> None:
    assert "not known without --gallery" in call("--truth", "truth.npz", "--set", "attack.steps=2")[1]
