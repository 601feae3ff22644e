"""What tests of attack share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget, Reconstruction


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


def write_attack_files() -> None:
    """A model before and after a step, true rows and models of a user, in the working directory."""
    with torch.random.fork_rng():  # the same weights whatever ran before
        torch.manual_seed(0)
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
