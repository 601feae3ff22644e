"""Whether an update was matched at all: the matching distance, and those of simulated updates with known data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.apps.attack_scores import Images, scores
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget, ReconstructionAttack
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.validation_of_measures import reconstruct

Verdict = Literal["good", "bad", "swapped", "undecided", "not checked"]
Optimizer = Literal["sgd", "momentum", "adam"]

ADAM_STEP = 1e-3
"""The learning rate of the simulated clients that use Adam instead of SGD: the default of Adam."""

MOMENTUM = 0.9
"""The momentum of the simulated clients that use it."""

OTHER_STEPS = (2.0, 0.5, 4.0)
"""How many times as many steps the simulated clients take that train for another time than stated, in turn."""

GAP = 1.25
"""Distances that differ by a smaller factor are taken to be alike."""

REACH = 1.5
"""By which factor a good distance may exceed those of the simulated updates, of which there are few."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """The matching distance of an attack, and the distances that the same attack reaches on simulated updates.

    There are two guesses without the update: grey, and the mean of the gallery. The attack *worked* on a simulated
    update if more than half of its inputs came back nearer than the better guess.

    Attributes:
        distance: Matching distance of the attacked update, from 0 on; NaN where the attack matches nothing.
        as_stated: Distances of simulated updates of a client that works exactly as stated.
        misstated: Distances of simulated updates of clients that work otherwise: with momentum, Adam or another number
            of steps, or with the update reversed.
        worked: Whether the attack worked on each update of `as_stated`; if left out, on all of them.
        worked_otherwise: Whether it worked on each update of `misstated`; if left out, on none of them.
        reverse: Distance of the update itself, with before and after swapped; NaN where it was not tried.
        is_refuted: Whether true inputs are known, and at most half of them came back nearer than the best guess.

    >>> good = Match(distance=1e-6, as_stated=(2e-6, 1e-5), misstated=(0.2, 0.3), reverse=0.4)
    >>> good.verdict, round(good.limit, 7)
    ('good', 1.5e-05)
    >>> replace(good, distance=0.01).verdict, replace(good, distance=0.2).verdict, replace(good, reverse=1e-7).verdict
    ('undecided', 'bad', 'swapped')
    """

    distance: float
    as_stated: tuple[float, ...] = ()
    misstated: tuple[float, ...] = ()
    worked: tuple[bool, ...] = ()
    worked_otherwise: tuple[bool, ...] = ()
    reverse: float = math.nan
    is_refuted: bool = False

    @property
    def working_distances(self) -> tuple[float, ...]:
        """Distances of the simulated updates on which the attack worked, of both sorts."""
        return tuple(distance for distance, worked in self._outcomes if worked)

    @property
    def failing_distances(self) -> tuple[float, ...]:
        """Distances of the simulated updates on which the attack did not work, of both sorts."""
        return tuple(distance for distance, worked in self._outcomes if not worked)

    @property
    def smallest_failing(self) -> float:
        """The smallest distance with which the attack did not work; infinite where it always worked."""
        return min(self.failing_distances, default=math.inf)

    @property
    def _outcomes(self) -> tuple[tuple[float, bool], ...]:
        worked = self.worked or (True,) * len(self.as_stated)
        otherwise = self.worked_otherwise or (False,) * len(self.misstated)
        return (*zip(self.as_stated, worked, strict=True), *zip(self.misstated, otherwise, strict=True))

    @property
    def is_weak(self) -> bool:
        """Whether the attack failed on half or more of the updates `as_stated`: it is too weak to show anything."""
        return 2 * sum(worked for _, worked in self._outcomes[: len(self.as_stated)]) <= len(self.as_stated)

    @property
    def limit(self) -> float:
        """The largest distance that is `good`; NaN where the simulated updates show none.

        Let F be the smallest distance with which the attack failed, and W the largest one, at most F / 1.25, with
        which it worked. The limit is 1.5 W, and at most the geometric mean of W and F. There is none where the attack
        is weak, or where an update `as_stated` on which it worked has a distance above F / 1.25. An attack that worked
        on all updates has no F, and W is of those `as_stated`.
        """
        if not self.as_stated or self.is_weak:
            return math.nan
        tiny = float(np.finfo(np.float32).eps)
        fails = max(self.smallest_failing, tiny)
        as_stated = [distance for distance, worked in self._outcomes[: len(self.as_stated)] if worked]
        if max(*as_stated, tiny) * GAP > fails:
            return math.nan
        below = as_stated if math.isinf(fails) else [value for value in self.working_distances if value * GAP <= fails]
        works = max(tiny, *below)
        return min(REACH * works, math.sqrt(works * fails))

    @property
    def verdict(self) -> Verdict:
        """`good` up to the limit, `bad` from the smallest distance on with which the attack failed.

        `swapped` where only the reversed update is matched, or is matched better. `undecided` between the two, and
        where the true inputs refute a good distance. Without a limit, the distance shows nothing unless it is above
        those of all n simulated updates, which is `bad`. An attack that cannot tell them apart is `bad` once in n + 1
        times.
        """
        if math.isnan(self.distance) or not self.as_stated or not self.misstated:
            return "not checked"
        if math.isnan(self.limit):
            if self.distance <= max((*self.as_stated, *self.misstated)):
                return "undecided"
            halfway = math.sqrt(max(self.as_stated) * min(self.misstated))
            return "swapped" if self.reverse <= halfway else "bad"
        if self.reverse < self.distance and self.reverse <= self.limit:
            return "swapped"
        if self.distance <= self.limit:
            return "undecided" if self.is_refuted else "good"
        return "bad" if self.distance >= self.smallest_failing else "undecided"


@dataclass(frozen=True, kw_only=True)
class Client:
    """How the client is stated to work. `order` are the places of its rows in each step, epoch after epoch alike."""

    lr: float
    steps: int
    batch_size: int
    clients: int = 1
    gradient: bool = False


@dataclass(frozen=True, kw_only=True)
class Control:
    """A simulated update, and the inputs (n, ...) that it was made from."""

    target: GradientTarget
    inputs: Images
    is_as_stated: bool


def make_controls(
    build: Callable[[Params], GradientTarget],
    before: Params,
    client: Client,
    data: Callable[[int], tuple[NDArray[np.float32], IntArray]],
    controls: int,
) -> list[Control]:
    """Simulated updates of a client that works as stated, and of clients that do not, without those of no direction.

    `build` makes a target from the parameters after training, or from a gradient; `data(i)` has the inputs and labels
    of simulation i. Each simulation is done as stated, reversed, and with Adam. Where a model is trained, it is also
    done with another number of steps, and where that takes several steps, with momentum.
    """
    made = []
    model = build(before).model
    for i in range(controls):
        inputs, labels = data(i)

        def train(work: Client, optimizer: Optimizer = "sgd", rows: Images = inputs, of: IntArray = labels) -> Params:
            return simulate(model, before, work, rows, of, optimizer=optimizer)

        right = build(train(client))
        targets = [right, reverse_update(right), build(train(client, "adam"))]
        if not client.gradient:
            factor = OTHER_STEPS[i % len(OTHER_STEPS)]
            steps = round(client.steps * factor) if client.steps * factor >= 1 else round(client.steps / factor)
            targets.append(build(train(replace(client, steps=steps))))
            targets += [build(train(client, "momentum"))] if client.steps > 1 else []
        made += [Control(target=each, inputs=inputs, is_as_stated=each is right) for each in targets]
    return [control for control in made if _has_direction(control.target)]


def compare(
    match: Match,
    attack: ReconstructionAttack,
    controls: Sequence[Control],
    rngs: Sequence[np.random.Generator],
    gallery: Images,
) -> Match:
    """The match with the distances that an attack reaches on controls, and whether it worked there.

    The guesses without the update are grey and the mean of the `gallery`. Its single inputs are no guesses: near copies
    of inputs of a control may be among them. Distances that are not finite are left out.
    """
    guess = gallery.mean(axis=0, keepdims=True) if len(gallery) else gallery
    found = reconstruct(attack, [control.target for control in controls], rngs) if controls else []
    outcomes: dict[bool, list[tuple[float, bool]]] = {True: [], False: []}
    for control, one, rng in zip(controls, found, rngs, strict=True):
        if math.isfinite(one.distance):
            margins = [score.margin for score in scores(one.inputs, control.inputs, guess, rng)]
            worked = sum(margin > 0 for margin in margins) * 2 > len(margins)
            outcomes[control.is_as_stated].append((clip_distance(one.distance), worked))
    return replace(
        match,
        as_stated=tuple(distance for distance, _ in outcomes[True]),
        misstated=tuple(distance for distance, _ in outcomes[False]),
        worked=tuple(worked for _, worked in outcomes[True]),
        worked_otherwise=tuple(worked for _, worked in outcomes[False]),
    )


def clip_distance(distance: float) -> float:
    """A distance without the rounding that may make it negative; NaN stays NaN."""
    return distance if math.isnan(distance) else max(0.0, float(distance))


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
    optimizer: Optimizer = "sgd",
) -> Params:
    """The parameters after the mean of the clients' local work on known data, or its gradient at the beginning."""
    shares = np.array_split(np.arange(len(inputs)), min(client.clients, len(inputs)))
    results = [_train(model, before, client, inputs[rows], labels[rows], optimizer) for rows in shares]
    return {name: sum(result[name] for result in results) / len(results) for name in before}  # type: ignore[misc]


def _train(
    model: object, before: Params, client: Client, inputs: NDArray[np.float32], labels: IntArray, optimizer: Optimizer
) -> Params:
    """One client: steps of SGD, of SGD with momentum, or of Adam, over its rows in their order."""
    import torch
    from torch import nn

    assert isinstance(model, nn.Module)
    network = copy.deepcopy(model)
    network.load_state_dict(dict(before), strict=False)
    params = trained_parameters(network)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)
    width = len(x) if client.gradient else min(client.batch_size, len(x))
    batches = torch.split(torch.arange(len(x)), width)
    mean, square, velocity = ({name: torch.zeros_like(value) for name, value in params.items()} for _ in range(3))
    steps = 1 if client.gradient else client.steps
    moves: Params = {}
    for step in range(steps):
        rows = batches[step % len(batches)]
        loss = nn.functional.cross_entropy(network(x[rows]), y[rows])
        moves = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        for name, gradient in moves.items():
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.999 * square[name] + 0.001 * gradient.square()
            velocity[name] = MOMENTUM * velocity[name] + gradient
            if optimizer == "momentum":
                moves[name] = velocity[name]
            elif optimizer == "adam":
                first, second = mean[name] / (1 - 0.9 ** (step + 1)), square[name] / (1 - 0.999 ** (step + 1))
                moves[name] = first / (second.sqrt() + 1e-8)
        if client.gradient:
            return {name: value.detach() for name, value in moves.items()}
        with torch.no_grad():
            for name, value in params.items():
                value.sub_((ADAM_STEP if optimizer == "adam" else client.lr) * moves[name])
    return {name: value.detach() for name, value in params.items()}


def _has_direction(target: GradientTarget) -> bool:
    values = list(target.gradient.values())
    return all(bool(value.isfinite().all()) for value in values) and any(bool(value.any()) for value in values)
