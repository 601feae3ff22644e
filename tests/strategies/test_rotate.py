"""Tests of `strategies/rotate.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.rotate import Rotate
from tests.strategies.strategies_helpers import one_round
from tests.strategies.weighing_helpers import follow


@pytest.mark.parametrize("rest", [0, 1, 3])
def test_counted_client_rests_for_the_stated_rounds(rest: int) -> None:
    rng = np.random.default_rng(5)
    last: dict[int, int] = {}
    w, turns = np.zeros(4), []
    rounds = [(rng.normal(size=(4, 4)).astype(np.float32), sorted(rng.permutation(9)[:4].tolist())) for _ in range(12)]
    for number, ((moves, who), after) in enumerate(zip(rounds, follow(Rotate(rest=rest), rounds), strict=True), 1):
        counted = [k for k, client in enumerate(who) if client not in last or number - last[client] > rest]
        last |= {who[k]: number for k in counted}
        w = w + moves[counted].mean(0) if counted else w
        np.testing.assert_allclose(after, w, rtol=1e-4, atol=1e-5)
        turns.append(len(counted))
    assert (min(turns) == 4) == (rest == 0)


def test_where_all_rest_the_model_is_kept() -> None:
    moves = np.ones((3, 2), dtype=np.float32)
    after = follow(Rotate(rest=2), [(moves, [0, 1, 2])] * 7)
    assert [model[0] for model in after] == [1, 1, 1, 2, 2, 2, 3]


def test_no_rest_is_fedavg_to_the_last_bit() -> None:
    rng = np.random.default_rng(6)
    strategy, plain = Rotate(rest=0), FedAvg()
    state = strategy.state({"w": torch.zeros((1, 30))}, 5)
    for number in range(1, 4):
        round_number = one_round(rng.normal(size=(5, 30)), sizes=[3, 1, 4, 1, 5], number=number)
        after, state = strategy.rule(state, round_number)
        assert torch.equal(after["w"], plain.rule({}, round_number)[0]["w"])
