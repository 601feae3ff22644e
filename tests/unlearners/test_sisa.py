"""Tests of `fedmem/unlearners/sisa.py`: which constituents it replaces, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.unlearner import RunToForget
from fedmem.unlearners.sisa import Sisa
from tests.unlearners.unlearner_helpers import Quadratic, three_clients


def test_with_one_shard_it_is_the_training_of_the_others() -> None:
    """Exact unlearning: the model of a federation in which client 1 never was."""
    context, others = three_clients(forget=1), three_clients()
    others.rows = {client: rows for client, rows in others.rows.items() if client != 1}
    others.__post_init__()
    (unlearned,) = Sisa().unlearn(context)
    assert torch.equal(unlearned["w"], others.history[-1]["w"])
    assert context.trained == 6


def test_with_nothing_to_forget_nobody_trains() -> None:
    context = three_clients()
    assert Sisa().unlearn(context)[0] is context.runs[0].before
    assert context.trained == 0


def model(value: float) -> Params:
    """Three constituents with a weight and a bias each."""
    return {
        f"constituents.{shard}.{name}": torch.full((2,), value + shard) for shard in range(3) for name in ("w", "b")
    }


@dataclass
class Sharded(Quadratic):
    """Two runs of seven clients in three shards; training again gives 90, 91 and 92."""

    forgetting: Mapping[int, Sequence[int]] = field(default_factory=dict)
    asked: list[Mapping[int, Sequence[int]]] = field(default_factory=list)

    @property
    def client_shards(self) -> ClientShards:
        return ClientShards(count=3)

    @property
    def runs(self) -> Sequence[RunToForget]:
        return [
            RunToForget(
                run=run,
                before=model(10.0),
                initial=model(0.0),
                clients=(0, 1, 2, 3, 5, 6),
                forgotten={client: np.array([client]) for client in self.forgetting.get(run, ())},
            )
            for run in (4, 7)
        ]

    def train_again(self, clients: Mapping[int, Sequence[int]]) -> Mapping[int, Params]:
        self.asked.append(clients)
        return {run: model(90.0) for run in clients}


@pytest.mark.parametrize(
    ("forgetting", "asked", "values"),
    [
        ({7: [3]}, {7: [0, 3, 6]}, {4: [10, 11, 12], 7: [90, 11, 12]}),
        # client 4 has left, and client 1 stays in its shard
        ({4: [4], 7: [4]}, {4: [1], 7: [1]}, {4: [10, 91, 12], 7: [10, 91, 12]}),
        ({4: [2, 6]}, {4: [0, 2, 3, 5, 6]}, {4: [90, 11, 92], 7: [10, 11, 12]}),
        ({}, {}, {4: [10, 11, 12], 7: [10, 11, 12]}),
    ],
    ids=["one", "left", "two shards", "none"],
)
def test_shards_of_forgotten_clients_are_replaced(
    forgetting: dict[int, list[int]], asked: dict[int, list[int]], values: dict[int, list[float]]
) -> None:
    whole = three_clients()
    context = Sharded(
        values=whole.values, rows=whole.rows, retained=whole.rows, initial=whole.initial, forgetting=forgetting
    )
    models = Sisa().unlearn(context)
    assert context.asked == [asked]
    for run, unlearned in zip((4, 7), models, strict=True):
        for name in ("w", "b"):
            assert [float(unlearned[f"constituents.{shard}.{name}"][0]) for shard in range(3)] == values[run]
        assert list(unlearned) == list(model(0.0))
