"""Tests of `fedmem/unlearners/scrub.py` on models whose entries are known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.unlearner import RunToForget
from fedmem.unlearners.scrub import Scrub

BEFORE: Params = {"a.weight": torch.tensor([1.0, 2.0]), "a.bias": torch.tensor([3.0]), "b.weight": torch.tensor([4.0])}
INITIAL: Params = {name: -value for name, value in BEFORE.items()}


@dataclass
class Known:
    """Two runs, the second of which has nothing to forget; unit 1 of layer a is tied to what is forgotten."""

    blocks: tuple[tuple[str, ...], ...] = (("a.weight", "a.bias"), ("b.weight",))
    asked: list[int] = field(default_factory=list)

    @property
    def runs(self) -> Any:
        forgotten = [{2: np.array([5])}, {}]
        return [
            RunToForget(run=run, before=BEFORE, initial=INITIAL, clients=(2,), forgotten=rows)
            for run, rows in enumerate(forgotten)
        ]

    def tied_entries(self, run: int) -> Params:
        self.asked.append(run)
        return {"a.weight": torch.tensor([False, True]), "b.weight": torch.tensor([False])}


def values(model: Params) -> list[list[float]]:
    return [value.tolist() for value in model.values()]


def test_entries_of_tied_units_are_initial_again() -> None:
    context = Known()
    forgetting, other = Scrub().unlearn(context)  # type: ignore[arg-type]
    assert values(forgetting) == [[1.0, -2.0], [3.0], [4.0]]
    assert other is BEFORE
    assert context.asked == [0]


def test_blocks_are_initial_again() -> None:
    context = Known()
    forgetting, other = Scrub(blocks=(2,)).unlearn(context)  # type: ignore[arg-type]
    assert values(forgetting) == [[1.0, 2.0], [3.0], [-4.0]]
    assert other is BEFORE
    assert context.asked == []


def test_all_blocks_are_the_initial_weights() -> None:
    forgetting, _ = Scrub(blocks=(1, 2)).unlearn(Known())  # type: ignore[arg-type]
    assert values(forgetting) == values(INITIAL)
