"""Attacks on saved updates, and the command that makes them: what is granted, scored, written and refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

from fedmem.apps.attack import Known, attack, scores, target_of
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.cli.main import app
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import RunError, TargetError

RNG = np.random.default_rng
KNOWN = Known(input_shape=(4,), num_classes=3, num_images=2, lr=0.5)


@dataclass
class Spy:
    """An attack that remembers what it was shown."""

    knows: tuple[str, ...] = ()

    def reconstruct(
        self, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
    ) -> Sequence[Reconstruction]:
        self.seen = targets[0]
        inputs = np.full((targets[0].num_images, *targets[0].input_shape), 0.5, np.float32)
        return [Reconstruction(inputs=inputs, labels=np.zeros(len(inputs), np.int64), distance=0.0)]


def pair(model: nn.Module, lr: float = 0.5) -> tuple[Params, Params]:
    """A model before and after one step on two rows."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = nn.functional.cross_entropy(model(torch.eye(4)[:2]), torch.tensor([2, 0]))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return before, {name: before[name] - lr * g for name, g in zip(before, gradient, strict=True)}


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
        done = attack(before, after, model=model, attack=spy, known=known)
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


def images(*values: float) -> NDArray[np.float32]:
    return np.array([[value] * 4 for value in values], dtype=np.float32)


def test_scores_pair_images_with_the_truth_and_compare_with_priors_and_gallery() -> None:
    truth, gallery = images(0.1, 0.9), images(0.3, 0.4)
    first, second = scores(images(0.8, 0.1), truth, gallery, RNG(0))
    assert (first.place, second.place) == (1, 0)
    assert first.psnr == 100
    np.testing.assert_allclose(second.psnr, 20, rtol=1e-5)
    # for the first the gallery's .3 is the nearest of the priors, for the second grey
    np.testing.assert_allclose(first.margin, 100 + 20 * np.log10(0.2), rtol=1e-5)
    np.testing.assert_allclose(second.margin, 20 + 20 * np.log10(0.4), rtol=1e-5)
    assert (first.identified, second.identified) == (1, 1)
    far, near = scores(images(0.35, 0.35), truth, gallery, RNG(0))
    assert (far.identified, near.identified) == (0, 0)
    assert far.margin < 0
    assert np.isnan(scores(images(0.1), truth[:1], gallery[:0], RNG(0))[0].identified)


def test_a_tie_with_the_gallery_identifies_nobody() -> None:
    assert scores(images(0.5), images(0.25), images(0.75), RNG(0))[0].identified == 0


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
def test_what_cannot_be_known_is_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(TargetError, match=said):
        Known(**{"input_shape": (4,), "num_classes": 3, "num_images": 2, "lr": 0.5, **changed})  # type: ignore[arg-type]


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
    before, after = pair(nn.Linear(4, 3))
    for name, params in (("before", before), ("after", after)):
        torch.save(params, f"{name}.pt")
    np.savez("truth.npz", inputs=np.eye(4, dtype=np.float32)[:2])
    eye = np.eye(4, dtype=np.float32)
    for name, inputs in (("many", eye), ("three", eye[:2, :3]), ("large", 2 * eye[:2]), ("nothing", eye[:0])):
        np.savez(f"{name}.npz", inputs=inputs)
    Path("simple.py").write_text(
        "from torch import nn\n\n\n"
        "class Dropped(nn.Linear):\n    def __init__(self):\n        super().__init__(4, 3)\n\n"
        "    def forward(self, x):\n        return super().forward(nn.functional.dropout(x, 0.5, self.training))\n\n\n"
        "class Net(nn.Linear):\n    def __init__(self, width=4):\n        super().__init__(width, 3)\n"
    )
    return tmp_path


DEFAULT_RATES = (
    "attack",
    "before.pt",
    "after.pt",
    "--model",
    "simple:Net",
    "--shape",
    "4",
    "--classes",
    "3",
    "--images",
    "2",
)


def call(*more: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*DEFAULT_RATES, "--lr", "0.5", *more])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_writes_what_it_found(folder: Path) -> None:
    code, said, _ = call("--truth", "truth.npz", "--set", "attack.steps=50", "--out", "found")
    assert code == 0
    assert "granted to the adversary: lr+steps+count" in said
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
        (("--attack", "lira"), "is no ReconstructionAttack"),
        (("--set", "attack.stepz=3"), "attack.stepz"),
        (("--set", "attack.steps=0"), "attack.steps"),
        (("--set", "client.lr=0.1"), "model and attack alone"),
        (("--set", "model.wide=3"), "--set model.NAME=VALUE"),
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
def test_a_wrong_command_says_what_is_wrong_and_leaves_nothing(more: tuple[str, ...], said: str, folder: Path) -> None:
    code, _, error = call(*more, "--out", "found")
    assert said in error
    assert code == 2
    assert not (folder / "found").exists()
    assert "Traceback" not in error


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
def test_files_that_nothing_can_be_read_from_are_refused(given: object, said: str, folder: Path) -> None:
    after = Path("after.pt")
    if isinstance(given, bytes):
        after.write_bytes(given)
    elif said == "not finite":
        torch.save({name: value * torch.nan for name, value in given.items()}, after)  # type: ignore[attr-defined]
    else:
        torch.save(torch.load("before.pt", weights_only=True) if given is None else given, after)
    code, _, error = call("--out", "found")
    assert said in error
    assert code == 2
    assert not (folder / "found").exists()


def test_what_was_done_is_written_beside_what_was_found(folder: Path) -> None:
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


def test_a_second_attack_is_told_that_the_first_is_there(folder: Path) -> None:
    assert call("--set", "attack.steps=2", "--out", "found")[0] == 0
    code, _, error = call("--out", "found")
    assert code == 2
    assert "found exists already, and holds a finished attack; replace it with --force" in error
    assert "--out" in error


def test_without_a_gallery_it_is_said_that_nobody_can_be_identified(folder: Path) -> None:
    assert "not known without --gallery" in call("--truth", "truth.npz", "--set", "attack.steps=2")[1]


def test_inverting_gradients_from_files_finds_both_rows(folder: Path) -> None:
    code, said, _ = call("--truth", "truth.npz", "--out", "found", "--set", "attack.steps=600", "--set", "attack.tv=0")
    assert code == 0
    assert "nearer than the best prior: 2 of 2" in said


def test_python_and_the_command_are_one(folder: Path) -> None:
    assert call("--out", "found", "--set", "attack.steps=20")[0] == 0
    done = attack(
        Path("before.pt"), Path("after.pt"), model=nn.Linear(4, 3), attack=InvertingGradients(steps=20), known=KNOWN
    )
    with np.load(folder / "found" / "reconstruction.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["inputs"], done.found.inputs)


def test_an_update_of_several_steps_is_attacked_in_the_order_that_is_known(folder: Path) -> None:
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
    assert "granted to the adversary: lr+steps+count+labels+algorithm+batches" in said
    assert "nearer than the best prior: 2 of 2" in said
    scores = json.loads((folder / "found" / "attack.json").read_text())["scores"]
    assert min(one["psnr"] for one in scores) > 30
    code, _, error = call(*work, "--out", "without")
    assert code == 2
    assert "order: drawn" in error
