"""Clients of random direction, that audit the noise which is to hide clients: where they point, and when they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, Params
from fedmem.seeding import Streams, stream

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, Sequence[int]]

AT_ONCE = 16
"""Directions that are held at the same time."""


@dataclass(frozen=True, kw_only=True)
class CanaryDirections:
    """Clients in addition to those of a federation, each with one fixed update (Andrew et al., 2024).

    An update is a direction, drawn uniformly from the sphere of all parameters (P,). It is ten times as long as the
    clipping norm of the round, so that the strategy has to clip it. A client participates like a real one: in each
    round with probability `rate`, independently, or else every `min_separation` rounds, from a first round 1 ..
    `min_separation` that is drawn once.

    Guarantees:

    - all draws depend on (seed, run) alone, whatever else trains, and move no other stream;
    - a direction does not depend on when its client comes, nor on the number of canary clients;
    - directions are drawn again whenever they are needed, so that no more than 16 of a run are held at a time.

    Fields:
        seed: Of the scenario.
        count: How many there are in each run, k.
        rate: Of coming in a round; from 0 to 1.
        min_separation: Rounds from one participation to the next, where these are regular; then `rate` is not used.
        adjacency: The difference between a federation with such a client and one without, as the guarantee counts it.
            It is the client, or its update where otherwise its place is left empty.

    >>> canaries = CanaryDirections(seed=0, count=3, rate=1.0)
    >>> first, *_ = canaries.directions(0, {"w": (2, 2), "b": (4,)})
    >>> first.shape, round(float(first @ first), 6), canaries.participants(0, 1).tolist()
    ((8,), 1.0, [True, True, True])

    Reference: Andrew et al. (2024), one-shot empirical privacy estimation for federated learning.
    """

    seed: int
    count: int
    rate: float = 1.0
    min_separation: int | None = None
    adjacency: Literal["add_remove", "zero_out"] = "add_remove"

    @cached_property
    def _streams(self) -> Mapping[bool, Streams]:
        names = {False: "canary directions", True: "fresh directions"}
        return {fresh: Streams(self.seed, name) for fresh, name in names.items()}

    def directions(self, run: int, shapes: Shapes, *, fresh: bool = False) -> Iterator[FloatArray]:
        """The `count` directions of a run, (P,) of length one each, parameters by name; or as many fresh ones."""
        yield from self._draw_directions(run, shapes, range(self.count), fresh)

    def participants(self, run: int, round_number: int) -> BoolArray:
        """(k,) which canary clients participate in a round, from 1 on."""
        if self.min_separation is None:
            return np.asarray(
                stream(self.seed, "canary turns", run=run, round_number=round_number).random(self.count) < self.rate
            )
        first = stream(self.seed, "canary turns", run=run).integers(1, self.min_separation + 1, size=self.count)
        return np.asarray((round_number >= first) & ((round_number - first) % self.min_separation == 0))

    def updates(self, runs: Sequence[int], round_number: int, like: Params) -> Iterator[tuple[Params, Tensor]]:
        """The directions of some canaries after the other (R, C, ...), in float64, and which of them participate (R,
        C).

        `like` has the shapes, with the run axis. The directions of canaries that do not participate are zero.
        """
        import torch

        shapes = {name: tuple(value.shape[1:]) for name, value in like.items()}
        names, is_present = sorted(shapes), np.stack([self.participants(run, round_number) for run in runs])
        for first in range(0, self.count, AT_ONCE):
            some = is_present[:, first : first + AT_ONCE]
            whole = np.zeros((*some.shape, size_of(shapes)))
            for place, run in enumerate(runs):
                who = np.flatnonzero(some[place])
                for k, direction in zip(
                    who, self._draw_directions(run, shapes, (first + who).tolist(), False), strict=True
                ):
                    whole[place, k] = direction
            parts = torch.split(torch.from_numpy(whole), [size_of({name: shapes[name]}) for name in names], dim=2)
            laid = {name: part.reshape(*some.shape, *shapes[name]) for name, part in zip(names, parts, strict=True)}
            yield {name: laid[name] for name in like}, torch.from_numpy(some)

    def sums(self, runs: Sequence[int], round_number: int, like: Params) -> tuple[Params, Tensor]:
        """The sum of the directions of participating canaries (R, ...), in float64, and their number (R,).

        Times the clipping norm it is what they add to the sum of clipped updates, if these are clipped. `like` has the
        shapes, with the run axis.
        """
        import torch

        shapes = {name: tuple(value.shape[1:]) for name, value in like.items()}
        counts, totals = [], []
        for run in runs:
            who = np.flatnonzero(self.participants(run, round_number)).tolist()
            total = np.zeros(size_of(shapes))
            for direction in self._draw_directions(run, shapes, who, False):
                total += direction
            counts.append(len(who))
            totals.append(total)
        names, whole = sorted(shapes), torch.from_numpy(np.stack(totals))
        parts = torch.split(whole, [size_of({name: shapes[name]}) for name in names], dim=1)
        laid = {name: part.reshape(len(runs), *shapes[name]) for name, part in zip(names, parts, strict=True)}
        return {name: laid[name] for name in like}, torch.tensor(counts, dtype=torch.float64)

    def _draw_directions(self, run: int, shapes: Shapes, who: Sequence[int], fresh: bool) -> Iterator[FloatArray]:
        size = size_of(shapes)
        for rng in self._streams[fresh].generators(run=[run] * len(who), round_number=0, client=who):
            direction = rng.standard_normal(size)
            yield direction / np.sqrt(direction @ direction)


def size_of(shapes: Shapes) -> int:
    """P, how many parameters there are.

    >>> size_of({"w": (2, 3), "b": ()})
    7
    """
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())


def flatten(params: Params) -> FloatArray:
    """(P,) float64: parameters by name, as directions have them."""
    return np.concatenate([params[name].detach().cpu().double().numpy().ravel() for name in sorted(params)])
