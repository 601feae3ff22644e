"""Tests of `fedmem/training/server_by_shard.py`: averages of shards, against a federation for each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedmem.contracts.arrays import Params
from fedmem.contracts.client_shards import ClientShards
from fedmem.strategies._rule import Round, Rule
from fedmem.strategies.fedadam import FedAdam
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fedavgm import FedAvgM
from fedmem.strategies.fedmedian import FedMedian
from fedmem.training.server_by_shard import RuleByShard, rule_by_shard

SHARDS = ClientShards(count=2)
RUNS, PLACES = 2, 5


def model(*shape: int, seed: int) -> Params:
    rng = torch.Generator().manual_seed(seed)
    return {
        SHARDS.entry(shard, name): torch.randn(*shape, size, generator=rng)
        for shard in (0, 1)
        for name, size in (("w", 3), ("b", 1))
    }


def round_of(clients: list[list[int]], before: Params, number: int = 1) -> Round:
    """Clients of R runs; each changes the constituent of its shard alone."""
    places = torch.tensor(clients)
    sent = {name: value[:, None].repeat(1, places.shape[1], *[1] * (value.dim() - 1)) for name, value in before.items()}
    changes = model(*places.shape, seed=number)
    for name, value in sent.items():
        shard = int(name.split(".")[1])
        is_own = (places >= 0) & (places % 2 == shard)
        value[is_own] += changes[name][is_own]
    return Round(
        number=number,
        before=before,
        sent=sent,
        weights=torch.where(places >= 0, places + 1.0, torch.nan).double(),
        present=places >= 0,
        clients=places,
    )


def of_shard(rnd: Round, shard: int, run: int) -> Round | None:
    """The round of one run as a federation of one shard sees it."""
    keep = [i for i, client in enumerate(rnd.clients[run].tolist()) if client >= 0 and client % 2 == shard]
    if not keep:
        return None
    one = slice(run, run + 1)
    return replace(
        rnd,
        before={name: value[one] for name, value in SHARDS.constituent(shard, rnd.before).items()},
        sent={name: value[one][:, keep] for name, value in SHARDS.constituent(shard, rnd.sent).items()},
        weights=rnd.weights[one][:, keep],
        present=rnd.present[one][:, keep],
        clients=rnd.clients[one][:, keep],
    )


COHORTS = [[[0, 1, 2, 3, 4], [0, 2, 4, -1, -1]], [[1, 3, -1, -1, -1], [0, 1, 3, -1, -1]], [[0, 1, 2, 3, 4]] * 2]
"""Three rounds of two runs; in the first, nobody of shard 1 takes part in run 1, and then nobody of 0 in run 0."""


@pytest.mark.parametrize("strategy", [FedAvg(), FedAvg(weighting="uniform"), FedAvgM(), FedAdam(), FedMedian()])
def test_each_shard_is_a_federation_of_its_own(strategy: Any) -> None:
    """Models and states over three rounds, to the last bit."""
    rule: Rule = RuleByShard(strategy, SHARDS)
    before = model(RUNS, seed=9)
    state = rule.state(before, 5)
    places = [(shard, run) for shard in (0, 1) for run in range(RUNS)]
    own = {
        (shard, run): {name: value[run : run + 1] for name, value in SHARDS.constituent(shard, before).items()}
        for shard, run in places
    }
    own_state = {place: strategy.state(value, 5) for place, value in own.items()}
    for number, clients in enumerate(COHORTS, start=1):
        rnd = round_of(clients, before, number)
        for shard, run in places:
            part = of_shard(rnd, shard, run)
            if part is not None:
                own[shard, run], own_state[shard, run] = strategy.rule(own_state[shard, run], part)
        before, state = rule.rule(state, rnd)
        for (shard, run), expected in own.items():
            for whole, parts in ((before, expected), (state, own_state[shard, run])):
                mine = SHARDS.constituent(shard, whole)
                assert mine.keys() == parts.keys()
                assert all(torch.equal(mine[name][run], value[0]) for name, value in parts.items())


def test_averages_are_not_diluted_by_other_shards() -> None:
    """The average of whole models, with unchanged copies in it, is another one."""
    rnd = round_of(COHORTS[0], model(RUNS, seed=9))
    apart, _ = RuleByShard(FedAvg(), SHARDS).rule({}, rnd)
    diluted, _ = FedAvg().rule({}, rnd)
    entry = SHARDS.entry(1, "w")
    step, diluted_step = apart[entry][0] - rnd.before[entry][0], diluted[entry][0] - rnd.before[entry][0]
    # clients 1 and 3 weigh 2 and 4 of 15
    torch.testing.assert_close(diluted_step, step * 6 / 15, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(step, diluted_step, atol=1e-3)


def test_a_shard_without_clients_stays() -> None:
    rnd = round_of(COHORTS[0], model(RUNS, seed=9))
    after, _ = RuleByShard(FedAvg(), SHARDS).rule({}, rnd)
    for name, value in SHARDS.constituent(1, after).items():
        assert torch.equal(value[1], rnd.before[SHARDS.entry(1, name)][1])
        assert not torch.equal(value[0], rnd.before[SHARDS.entry(1, name)][0])


def test_without_shards_the_rule_is_that_of_the_strategy() -> None:
    strategy = FedAvg()
    assert rule_by_shard(strategy, None) is strategy
