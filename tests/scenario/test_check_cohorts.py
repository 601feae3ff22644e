"""Tests of `fedmem/scenario/check_cohorts.py`."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg

from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter
from fedmem.samplers.uniform import Uniform
from fedmem.scenario.check_cohorts import _whole_cohort
from tests.scenario.declared_helpers import COMPARING, KINDS, refusal


@pytest.mark.parametrize("probe", COMPARING, ids=KINDS)
def test_comparing_probe_needs_cohorts_independent_of_coins(probe: dict[str, Any]) -> None:
    greedy = {"sampler": {"kind": "power_of_choice", "size": 3, "candidates": 4}, "probes": [probe]}
    ((path, message),) = refusal(**greedy, roster="per_run")
    assert path == "probes[0]"
    assert f"{probe['kind']} compares examples that are in with examples that are held out" in message
    assert "power_of_choice" in message
    assert not refusal(**greedy, roster="pilot")
    assert not refusal(probes=[probe], roster="per_run"), "a sampler that reads no coin picks alike in all runs"


class Half:
    """A maker whose strategy asks for half of the clients."""

    def make(self, cohort_size: int) -> FedAvg:
        return FedAvg(fraction_train=0.5, min_train_nodes=2)


def test_a_strategy_that_trains_a_part_of_the_cohort_is_found() -> None:
    half, sampler = Half(), Uniform(size=6)
    (problem,) = _whole_cohort(half, sampler, 10, "sampler")
    assert "fraction_train 0.5" in problem.message
    assert "cohort_by: strategy" in problem.message
    assert not list(_whole_cohort(half, sampler, 10, "strategy"))
    assert not list(_whole_cohort(half, Uniform(size=2), 10, "sampler"))
    assert not list(
        _whole_cohort(FlowerStrategyAdapter(kind="flwr.serverapp.strategy:FedAvg", fields={}), sampler, 10, "sampler")
    )
