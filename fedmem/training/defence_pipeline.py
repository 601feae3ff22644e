"""Apply the defences of a scenario to an update on its way out of a client, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from fedmem.contracts.arrays import Params
from fedmem.contracts.defence import Defence, defence_declaration
from fedmem.contracts.validation import tensors
from fedmem.guards.guarding import Guard
from fedmem.seeding import Streams
from fedmem.training.finite import is_finite
from fedmem.training.updates import unflatten


@dataclass(frozen=True, kw_only=True)
class Place:
    """Whose update it is."""

    run: int
    round: int
    client: int


class DefencePipeline:
    """The defences of a scenario, with the streams that they draw from: one for each defence, run, round and client.

    Guarantees:

    - a client alone, or as part of a stack, is given the same draws, with any other clients and on any engine;
    - parameters that are no floating numbers (counters) leave as they are;
    - without defences and guarantee nothing is touched: `apply_defences` stays the same object;
    - where a guarantee rests on a clip, an update that is not finite becomes an update of zero before it. That is right
      before a `clip` that `noise` follows, and with `guaranteed` (a strategy that adds noise) before all defences.
      Otherwise it stays as it is, and its client fails.

    >>> from fedmem.defences.clip import Clip
    >>> model, before = {"w": torch.tensor([3.0, 5.0])}, {"w": torch.tensor([0.0, 1.0])}
    >>> DefencePipeline([Clip(norm=1.0)], seed=0).apply_defences(model, before, {})["w"].tolist()
    [0.6000000238418579, 1.7999999523162842]
    """

    def __init__(self, defences: Sequence[Defence], seed: int, *, guaranteed: bool = False) -> None:
        self._defences = tuple(defences)
        self._guaranteed = guaranteed
        declarations = [defence_declaration(defence) for defence in self._defences]
        self._silencing = {
            place
            for place, (clip, noise) in enumerate(pairwise(declarations))
            if clip.norm_bound is not None and noise.gaussian_deviation is not None
        }
        # by position, so that a change of one defence moves nothing that another draws
        self._streams = {
            str(position): Streams(seed, f"defence {position}")
            for position, defence in enumerate(defences)
            if defence.draws != "none"
        }

    @property
    def defences(self) -> tuple[Defence, ...]:
        """The defences, in their order."""
        return self._defences

    def __bool__(self) -> bool:
        return bool(self._defences) or self._guaranteed

    def draws(self, model: Params, places: Sequence[Place]) -> Params:
        """The draws for these clients of one round: position of the defence -> (T, P) float32."""
        size = sum(value.numel() for value in model.values() if value.is_floating_point())
        draws: Params = {}
        for position, streams in self._streams.items():
            rows = np.empty((len(places), size), dtype=np.float32)
            normal = self._defences[int(position)].draws == "normal"
            where = {"run": [place.run for place in places], "client": [place.client for place in places]}
            for row, rng in zip(rows, streams.generators(**where, round_number=places[0].round), strict=True):
                _fill_draws(row, rng, normal)
            draws[position] = torch.from_numpy(rows)
        return draws

    def apply_defences(self, model: Params, before: Params, draws: Params) -> Params:
        """The model that one client sends instead of this one; a pure function. `draws` are its rows of `draws`."""
        if self._guaranteed:
            # no arithmetic, so that a finite model keeps its bits
            finite = is_finite(model)
            model = {name: torch.where(finite, value, before[name]) for name, value in model.items()}
        if not self._defences:
            return model
        update = {name: value - before[name] for name, value in model.items() if value.is_floating_point()}
        for position, defence in enumerate(self._defences):
            row = draws.get(str(position))
            if position in self._silencing:
                finite = is_finite(update)
                update = {name: torch.where(finite, value, torch.zeros_like(value)) for name, value in update.items()}
            with Guard("defence", defence, "apply") as guard:
                new_update = defence.apply(update, {} if row is None else unflatten(row, update))
                tensors(guard, "the update", new_update, update)
            update = new_update
        return {name: before[name] + update[name] if name in update else value for name, value in model.items()}


def _fill_draws(row: NDArray[np.float32], rng: np.random.Generator, normal: bool) -> None:
    if normal:
        rng.standard_normal(dtype=np.float32, out=row)
    else:
        rng.random(dtype=np.float32, out=row)
