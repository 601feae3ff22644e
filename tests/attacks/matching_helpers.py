"""What tests of matching share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from fedmem.attacks._matching import Matching
from fedmem.attacks._problems import Problem
from fedmem.contracts.data import Examples
from tests.lab import parameters, target_of

CLASSES, SHAPE = 10, (2, 9, 8)


class InPlace(nn.Module):
    """Writes over what its layers gave."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Linear(4 * 7 * 6, CLASSES)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.act(self.first(x)).flatten(1))
        return out


def made(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
        model(torch.zeros(2, *SHAPE))
    return model


def problems(model: nn.Module, sizes: Sequence[int] = (3, 1, 2)) -> list[Problem]:
    rng = np.random.default_rng(0)
    found = []
    for index, size in enumerate(sizes):
        rows = Examples(
            inputs=rng.random((size, *SHAPE), dtype=np.float32),
            targets=rng.integers(CLASSES, size=size),
            ids=np.arange(size),
        )
        noise = rng.random((size, *SHAPE), dtype=np.float32)
        target = target_of(model, parameters(model), rows)
        found.append(Problem(index=index, target=target, inputs=noise, labels=rng.integers(CLASSES, size=size)))
    return found


def naive(problem: Problem, images: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Both objectives from one flat gradient."""
    model = problem.target.model
    params = {name: value.double().requires_grad_() for name, value in problem.target.params.items()}
    outputs = torch.func.functional_call(model, params, (images,))
    loss = -(outputs.log_softmax(1) * labels).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    mine = torch.cat([value.flatten() for value in gradients])
    wanted = torch.cat([problem.target.gradient[name].double().flatten() for name in params])
    cosine = 1 - mine @ wanted / (mine.norm() * wanted.norm())
    return {"cosine": cosine, "euclid": (mine - wanted).square().sum() / wanted.square().sum()}


def compared(model: nn.Module, objective: str) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """The largest differences of values and of slopes in images and labels, against the naive ones; whether shared."""
    given = problems(model)
    stacked = Matching(given, torch.float64)
    images = stacked.starts.clone().requires_grad_()
    soft = (stacked.labels * 0.7 + 0.03).requires_grad_()
    values = getattr(stacked, objective)(images, soft)
    slopes = torch.autograd.grad(values.sum(), (images, soft))
    worst, apart = torch.zeros(()), torch.zeros(())
    for i, problem in enumerate(given):
        count = len(problem.labels)
        own = images[i, :count].detach().requires_grad_(), soft[i, :count].detach().requires_grad_()
        value = naive(problem, *own)[objective]
        worst = torch.maximum(worst, (values[i] - value).abs().detach())
        for slope, expected in zip(slopes, torch.autograd.grad(value, own), strict=True):
            apart = torch.maximum(apart, (slope[i, :count] - expected).abs().max() / expected.abs().max())
            assert not slope[i, count:].any()
    return worst, apart, stacked.has_shared_parameters
