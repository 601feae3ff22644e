"""Tests of `fedmem/engines/_rule_path.py`."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.guards.guarding import PartError
from fedmem.strategies._rule import Round, ServerRule, share, weighted_mean
from tests.engines.lockstep_helpers import ONE_BY_ONE, same, trained
from tests.tiny import tiny


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
@pytest.mark.parametrize("sampler", [{"kind": "uniform", "size": 3}, {"kind": "poisson", "rate": 0.3}])
def test_the_rule_path_equals_the_message_path(strategy: str, sampler: dict[str, Any]) -> None:
    messages = tiny(strategy={"kind": strategy}, sampler=sampler, speed={**ONE_BY_ONE, "server": "messages"})
    rule = tiny(strategy={"kind": strategy}, sampler=sampler, speed={**ONE_BY_ONE, "server": "rule"})
    one, other = trained(messages), trained(rule)
    assert (one.server, other.server) == ("messages", "rule")
    assert same(one.params, other.params)
    assert one.bank.participation == other.bank.participation
    for a, b in zip(one.bank.evidence, other.bank.evidence, strict=True):
        assert (a.round, a.level, a.set) == (b.round, b.level, b.set)
        assert np.array_equal(a.margin, b.margin)


def test_auto_takes_the_rule_where_there_is_one() -> None:
    """A foreign strategy has none, and one that picks its own cohort does so in its messages."""
    foreign = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    for changes, server in (
        ({}, "rule"),
        ({"strategy": foreign, "cohort_by": "strategy"}, "messages"),
        ({"strategy": {"kind": "fedavg"}, "cohort_by": "strategy"}, "messages"),
        ({"speed": {"server": "messages"}}, "messages"),
    ):
        assert trained(tiny(rounds=2, **changes)).server == server


@dataclass(frozen=True, kw_only=True)
class Careless(ServerRule):
    """A rule that adds noise from one of the global generators, or from those of the runs."""

    source: str = "runs"

    def rule(self, state: Any, rnd: Round) -> Any:
        """The mean with noise."""
        means = weighted_mean(rnd.sent, share(rnd.weights, rnd.present))
        draws: dict[str, Callable[[], float]] = {
            "random": random.random,
            "numpy.random": np.random.random,
            "torch": lambda: torch.rand(()).item(),
        }
        if self.source in draws:
            return {name: value + draws[self.source]() for name, value in means.items()}, state
        noise = torch.tensor([rng.random() for rng in rnd.drawing])
        return {name: value + noise.reshape(-1, *(1,) * (value.ndim - 1)) for name, value in means.items()}, state


@pytest.mark.parametrize("source", ["random", "numpy.random", "torch"])
def test_a_rule_that_draws_from_a_global_generator_is_refused(source: str) -> None:
    strategy = {"kind": "tests.engines.test_rule_path:Careless", "source": source}
    with pytest.raises(PartError, match=f"global generator of {source},.*rnd.drawing"):
        trained(tiny(rounds=2, strategy=strategy))


def test_noise_of_a_rule_differs_between_runs_and_repeats() -> None:
    strategy = {"kind": "tests.engines.test_rule_path:Careless"}
    one, again = (trained(tiny(rounds=2, runs=2, strategy=strategy)) for _ in range(2))
    assert same(one.params, again.params)
    first, second = one.params[0], one.params[1]
    assert all(float((first[name] - second[name]).abs().max()) > 0 for name in first)
