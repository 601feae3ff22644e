"""Tests of `fedmem/engines/_message_path.py`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from fedmem.contracts.evidence import Transition
from fedmem.federation.build import build
from tests.engines.lockstep_helpers import same, trained
from tests.tiny import tiny


@pytest.mark.parametrize(
    "kind", ["FedAvg", "FedMedian", "FedTrimmedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "QFedAvg", "Krum"]
)
def test_flowers_own_strategies_run(kind: str) -> None:
    fields = {"client_learning_rate": 0.2, "q": 0.1} if kind == "QFedAvg" else {}
    strategy = {"kind": f"flwr.serverapp.strategy:{kind}", **fields}
    result = trained(tiny(strategy=strategy, sampler={"kind": "everyone"}, rounds=2))
    assert all(torch.isfinite(value).all() for params in result.params for value in params.values())
    assert all(value.dtype == torch.float32 for params in result.params for value in params.values())
    assert not same(result.params[:1], result.params[1:2])


def test_the_aggregate_names_those_who_contributed() -> None:
    seen: list[Transition] = []

    class Globals:
        def observes_round(self, round_number: int) -> bool:
            return True

        def see(self, transitions: Sequence[Transition]) -> None:
            seen.extend(t for t in transitions if t.level == "global" and t.round)

    from fedmem.engines.lockstep import Lockstep
    from fedmem.training.one_by_one import OneByOne
    from fedmem.training.stacked import LocalWork

    half = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    scenario = tiny(strategy=half, cohort_by="strategy", sampler={"kind": "everyone"}, runs=1, rounds=3)
    federation = build(scenario)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    work = LocalWork(federation, scenario.client, scenario.seed)
    finished = Lockstep(scenario, federation, executor, work, Globals()).train([0])
    for transition in seen:
        trained_in = {p.client for p in finished.participation if p.round == transition.round}
        assert set(transition.clients) == trained_in
        assert len(trained_in) == 2
