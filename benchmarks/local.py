"""Local training and averaging as one would write them by hand: the plain loop, and the client of several peers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plan import Arrays, Plan

Batch = tuple[Tensor, Tensor]


class Data:
    """The rows of a plan as tensors, and the batches of a client as slices of them."""

    def __init__(self, plan: Plan) -> None:
        self.inputs, self.targets = torch.from_numpy(plan.inputs), torch.from_numpy(plan.targets)
        self._plan = plan

    def batches(self, run: int, round_number: int, place: int) -> Iterable[Batch]:
        """What the client at this place of the cohort trains on."""
        for rows in self._plan.batches_of(run, round_number, place):
            at = torch.from_numpy(rows)
            yield self.inputs[at], self.targets[at]

    def size(self, run: int, round_number: int, place: int) -> int:
        """How many rows these are."""
        return int((self._plan.batches[run, round_number, place] >= 0).sum())


def steps(module: nn.Module, batches: Iterable[Batch], lr: float) -> None:
    """One step of plain gradient descent for each batch."""
    params = list(module.parameters())
    for inputs, targets in batches:
        gradients = torch.autograd.grad(F.cross_entropy(module(inputs), targets), params)
        with torch.no_grad():
            for value, gradient in zip(params, gradients, strict=True):
                value.add_(gradient, alpha=-lr)


def load(module: nn.Module, values: Sequence[Tensor]) -> None:
    """Overwrite the parameters."""
    with torch.no_grad():
        for own, value in zip(module.parameters(), values, strict=True):
            own.copy_(value)


def arrays(module: nn.Module) -> Arrays:
    """The parameters by name."""
    return {name: value.detach().numpy().copy() for name, value in module.named_parameters()}


def prepare(module: nn.Module, initial: Arrays) -> nn.Module:
    """The module with the weights that a plan starts from."""
    module.load_state_dict({name: torch.from_numpy(value) for name, value in initial.items()})
    return module
