"""Whether an update was matched at all: the matching distance, and those of simulated updates with known data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget, ReconstructionAttack
from fedmem.contracts.validation_of_measures import reconstruct

Verdict = Literal["matched", "unmatched", "swapped", "undecided", "not checked"]

ADAM_STEP = 1e-3
"""The learning rate of the simulated clients that use Adam instead of SGD: the default of Adam."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The matching distance of an attack, and the distances that the same attack reaches on simulated updates.

    Attributes:
        distance: Matching distance of the attacked update, from 0 on; NaN where the attack matches nothing.
        as_stated: Distances of simulated updates of a client that works exactly as stated.
        misstated: Distances of simulated updates of clients that work otherwise: with Adam, or with the update
            reversed.
        reverse: Distance of the update itself, with before and after swapped; NaN where it was not tried.

    >>> good = Match(distance=1e-6, as_stated=(2e-6, 1e-5), misstated=(0.2, 0.3), reverse=0.4)
    >>> good.verdict, round(good.limit, 4)
    ('matched', 0.0014)
    >>> replace(good, distance=0.16).verdict, replace(good, reverse=1e-7).verdict
    ('unmatched', 'swapped')
    """

    distance: float
    as_stated: tuple[float, ...] = ()
    misstated: tuple[float, ...] = ()
    reverse: float = math.nan

    @property
    def limit(self) -> float:
        """The geometric mean of the largest distance `as_stated` and the smallest one `misstated`; NaN without both."""
        if not self.as_stated or not self.misstated:
            return math.nan
        tiny = float(np.finfo(np.float32).eps)
        return math.sqrt(max((*self.as_stated, tiny)) * max(min(self.misstated), tiny))

    @property
    def verdict(self) -> Verdict:
        """`matched` up to the limit, `unmatched` above it, `swapped` where only the reversed update is matched, or
        is matched better.

        `undecided` where the simulated updates of both sorts are matched equally well, so that the distance shows
        nothing unless it is above all of them. An attack that cannot tell them apart is called `unmatched` once in
        3 c + 1 times, for c simulations as stated and 2 c otherwise.
        """
        if math.isnan(self.distance) or math.isnan(self.limit):
            return "not checked"
        if max(self.as_stated) >= min(self.misstated) and self.distance <= max((*self.as_stated, *self.misstated)):
            return "undecided"
        if self.reverse < self.distance and self.reverse <= self.limit:
            return "swapped"
        return "matched" if self.distance <= self.limit else "unmatched"


@dataclass(frozen=True, kw_only=True)
class Client:
    """How the client is stated to work. `order` are the places of its rows in each step, epoch after epoch alike."""

    lr: float
    steps: int
    batch_size: int
    clients: int = 1
    gradient: bool = False


def control_targets(
    build: Callable[[Params], GradientTarget],
    before: Params,
    client: Client,
    data: Callable[[int], tuple[NDArray[np.float32], IntArray]],
    controls: int,
) -> tuple[list[GradientTarget], list[GradientTarget]]:
    """Targets of simulated updates of a client that works as stated, and of clients that do not.

    `build` makes a target from the parameters after training, or from a gradient; `data(i)` has the inputs and labels
    of simulation i.
    """
    as_stated, misstated = [], []
    model = build(before).model
    for i in range(controls):
        inputs, labels = data(i)
        after = simulate(model, before, client, inputs, labels)
        as_stated.append(build(after))
        misstated.append(reverse_update(as_stated[-1]))
        misstated.append(build(simulate(model, before, client, inputs, labels, adam=True)))
    return [t for t in as_stated if _has_direction(t)], [t for t in misstated if _has_direction(t)]


def distances(
    attack: ReconstructionAttack, targets: Sequence[GradientTarget], rngs: Sequence[np.random.Generator]
) -> tuple[float, ...]:
    """The distances that an attack reaches, without those that are not finite."""
    found = reconstruct(attack, targets, rngs) if targets else []
    return tuple(max(0.0, float(one.distance)) for one in found if math.isfinite(one.distance))


def reverse_update(target: GradientTarget) -> GradientTarget:
    """The same target with the opposite update, as if before and after were swapped."""
    update = None if target.update is None else {name: -value for name, value in target.update.items()}
    return replace(target, gradient={name: -value for name, value in target.gradient.items()}, update=update)


def simulate(
    model: object,
    before: Params,
    client: Client,
    inputs: NDArray[np.float32],
    labels: IntArray,
    *,
    adam: bool = False,
) -> Params:
    """The parameters after the mean of the clients' local work on known data, or its gradient at the beginning."""
    shares = np.array_split(np.arange(len(inputs)), min(client.clients, len(inputs)))
    results = [_train(model, before, client, inputs[rows], labels[rows], adam) for rows in shares]
    return {name: sum(result[name] for result in results) / len(results) for name in before}  # type: ignore[misc]


def _train(
    model: object, before: Params, client: Client, inputs: NDArray[np.float32], labels: IntArray, adam: bool
) -> Params:
    """One client: plain steps of SGD, or of Adam, over its rows in their order."""
    import torch
    from torch import nn

    assert isinstance(model, nn.Module)
    network = copy.deepcopy(model)
    network.load_state_dict(dict(before), strict=False)
    params = dict(network.named_parameters())
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    width = len(x) if client.gradient else min(client.batch_size, len(x))
    batches = torch.split(torch.arange(len(x)), width)
    mean, square = ({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2))
    steps = 1 if client.gradient else client.steps
    moves: Params = {}
    for step in range(steps):
        rows = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        moves = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        for name, gradient in moves.items():
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.999 * square[name] + 0.001 * gradient.square()
            if adam:
                first, second = mean[name] / (1 - 0.9 ** (step + 1)), square[name] / (1 - 0.999 ** (step + 1))
                moves[name] = first / (second.sqrt() + 1e-8)
        if client.gradient:
            return {name: value.detach() for name, value in moves.items()}
        with torch.no_grad():
            for name, value in params.items():
                value.sub_((ADAM_STEP if adam else client.lr) * moves[name])
    return {name: value.detach() for name, value in params.items()}


def _has_direction(target: GradientTarget) -> bool:
    values = list(target.gradient.values())
    return all(bool(value.isfinite().all()) for value in values) and any(bool(value.any()) for value in values)
