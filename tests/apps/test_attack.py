"""Attacks on saved updates, and the command that makes them: what is granted, scored, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import Known, attack, target_of
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.errors import RunError, TargetError
from tests.apps.attack_helpers import Spy, call, pair, write_attack_files

RNG = np.random.default_rng
KNOWN = Known(input_shape=(4,), num_classes=3, num_images=2, lr=0.5)


def test_the_gradient_has_the_sign_and_scale_of_descent() -> None:
    model = nn.Linear(4, 3)
    before, after = pair(model)
    loss = nn.functional.cross_entropy(model(torch.eye(4)[:2]), torch.tensor([2, 0]))
    wanted = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    target = target_of(before, after, model, KNOWN)
    assert target.update is not None
    for name, value in wanted.items():
        torch.testing.assert_close(target.gradient[name].float(), value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(target.update[name].float(), -0.5 * value, rtol=1e-4, atol=1e-6)
    given = target_of(before, wanted, model, KNOWN, gradient=True)
    assert given.update is None
    assert all(torch.equal(given.gradient[name], value) for name, value in wanted.items())


def test_an_attack_is_shown_what_it_declares_and_no_more() -> None:
    model = nn.Linear(4, 3)
    before, after = pair(model)
    known = Known(
        input_shape=(4,), num_classes=3, num_images=2, lr=0.5, steps=3, batch_size=1, labels=(2, 0), in_order=True
    )
    blind, granted = Spy(), Spy(("labels", "algorithm", "batches"))
    for spy in (blind, granted):
        done = attack(before, after, model=model, attack=spy, known=known, controls=0)
        assert done.knows == spy.seen.knows
    assert (blind.seen.labels, blind.seen.algorithm, blind.seen.batches) == (None, None, None)
    assert blind.seen.knows == "lr+steps+count"
    assert granted.seen.knows == "lr+steps+count+labels+algorithm+batches"
    assert granted.seen.labels is not None
    assert granted.seen.labels.tolist() == [0, 2]
    # trained on label 2 first, which is the second of the sorted ones
    assert granted.seen.batches is not None
    assert granted.seen.batches.tolist() == [[1], [0], [1]]


def test_the_model_is_called_as_the_client_called_it() -> None:
    model = nn.Linear(4, 3)
    known = Known(input_shape=(4,), num_classes=3, num_images=1, lr=1, mean=(0.5,), std=(2.0,), mode="eval")
    prepared = target_of(*pair(model), model, known).model
    assert not prepared.training
    assert model.training
    rows = torch.rand(2, 4)
    torch.testing.assert_close(prepared(rows), model((rows - 0.5) / 2))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"lr": float("inf")}, "finite"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "mean must be finite"),
        ({"num_images": 0}, "num_images must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"labels": (1,)}, "1 labels for 2 images"),
        ({"labels": (1, 3)}, r"label 3 is none of 0 .. 2"),
        ({"in_order": True}, "give labels as well"),
        ({"mean": (0.5,)}, "given together"),
        ({"mean": (0.5,), "std": (0.0,)}, "std above 0"),
    ],
)
def test_impossible_knowledge_is_refused_with_its_field(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        Known(**{"input_shape": (4,), "num_classes": 3, "num_images": 2, "lr": 0.5, **changed})


def test_inputs_and_classes_that_do_not_fit_the_model_are_named() -> None:
    model = nn.Linear(4, 3)
    for known, said in (
        (Known(input_shape=(5,), num_classes=3, num_images=1, lr=1), r"inputs of shape \(5,\)"),
        (Known(input_shape=(4,), num_classes=4, num_images=1, lr=1), r"outputs of shape \(3,\) for 4 classes"),
        (Known(input_shape=(4,), num_classes=3, num_images=1, lr=1, mean=(0, 0), std=(1, 1)), "one for each channel"),
    ):
        with pytest.raises(RunError, match=said):
            target_of(*pair(model), model, known)
    before, after = pair(model)
    with pytest.raises(RunError, match=r"truth: inputs have shape \(3,\)"):
        attack(before, after, model=model, attack=Spy(), known=KNOWN, truth=np.zeros((1, 3)))
    with pytest.raises(RunError, match=r"gallery: inputs must lie in \[0, 1\]"):
        attack(before, after, model=model, attack=Spy(), known=KNOWN, gallery=np.full((1, 4), 2.0))


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_attack_files()
    return tmp_path


def test_inverting_gradients_from_files_finds_both_rows(folder: Path) -> None:
    code, said, _ = call("--truth", "truth.npz", "--out", "found", "--set", "attack.steps=600", "--set", "attack.tv=0")
    assert code == 0
    assert "nearer than the baseline guess: 2 of 2" in said


def test_python_and_the_command_are_one(folder: Path) -> None:
    assert call("--out", "found", "--set", "attack.steps=20")[0] == 0
    done = attack(
        Path("before.pt"), Path("after.pt"), model=nn.Linear(4, 3), attack=InvertingGradients(steps=20), known=KNOWN
    )
    with np.load(folder / "found" / "reconstruction.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["inputs"], done.found.inputs)


def test_attack_on_several_steps_uses_the_known_order(folder: Path) -> None:
    """The labels are given in the order of training, 2 first; `unrolled` does the three steps again."""
    model = nn.Linear(4, 3)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for place in (0, 1, 0):
        loss = nn.functional.cross_entropy(
            model(torch.eye(4)[place : place + 1]), torch.tensor([2, 0])[place : place + 1]
        )
        slopes = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for value, slope in zip(model.parameters(), slopes, strict=True):
                value.sub_(0.5 * slope)
    torch.save(before, "before.pt")
    torch.save(model.state_dict(), "after.pt")
    work = (
        "--steps",
        "3",
        "--batch-size",
        "1",
        "--labels",
        "2,0",
        "--attack",
        "unrolled",
        "--set",
        "attack.labels=known",
    )
    code, said, _ = call("--truth", "truth.npz", *work, "--in-order", "--set", "attack.tv=0", "--out", "found")
    assert code == 0
    assert "the labels, how the client trains, the order of the examples" in said
    assert "nearer than the baseline guess: 2 of 2" in said
    scores = json.loads((folder / "found" / "attack.json").read_text())["scores"]
    assert min(one["psnr"] for one in scores) > 30
    code, _, error = call(*work, "--out", "without")
    assert code == 2
    assert "order: drawn" in error


def test_fewer_true_inputs_than_images_are_noted() -> None:
    model = nn.Linear(4, 3)
    before, after = pair(model)
    known = Known(input_shape=(4,), num_classes=3, num_images=2, lr=1)
    for true, expected in ((1, ["2 images shape the update by what is known"]), (2, []), (0, [])):
        truth = np.random.default_rng(0).random((true, 4)) if true else None
        done = attack(before, after, model=model, attack=Spy(), known=known, truth=truth, controls=0)
        assert [note[: len(text)] for note, text in zip(done.notes, expected, strict=True)] == expected
