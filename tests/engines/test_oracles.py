"""Federations whose outcome is known in closed form, through the real engine and real Flower strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.federation import Federation
from fedmem.engines.lockstep import Lockstep
from fedmem.federation.build import build
from fedmem.training.executor import BaseExecutor
from fedmem.training.stacked import LocalWork, TrainedWork, Work
from tests.tiny import tiny


class Mean(BaseExecutor):
    """Each client minimises a quadratic: its model is the mean of its own first pixels."""

    name = "mean"

    def train_all(self, work: Work) -> TrainedWork:
        held = [self._inputs[torch.from_numpy(rows.copy())].double().flatten(1)[:, :1] for rows in work.rows]
        model = {"w": torch.stack([values.mean(0) for values in held])}
        return TrainedWork(work=work, sent=model, kept=model, memory={}, report={}, loss=np.zeros(len(work)))

    def attempt_all(self, work: Work) -> tuple[TrainedWork, dict[int, str]]:
        return self.train_all(work), {}

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        raise AssertionError("nobody looks")


def means(server: str, **changes: Any) -> tuple[FloatArray, Federation]:
    """The global scalar of every run after one round with everyone, and the federation that gave it."""
    once = {"runs": 2, "rounds": 1, "observe": {"every": 1}, "sampler": {"kind": "everyone"}, "exclusion": "remove"}
    scenario = tiny(**{**once, **changes})
    federation = replace(build(scenario), model=nn.Linear(1, 1), initial={"w": torch.zeros(1, dtype=torch.float64)})
    executor = Mean(federation.model, scenario.client, federation.store)
    work = LocalWork(federation, scenario.client, scenario.seed)
    finished = Lockstep(scenario, federation, executor, work, None).train(range(2), server)
    return np.array([float(params["w"]) for params in finished.params]), federation


def held(federation: Federation, run: int) -> list[FloatArray]:
    """The first pixels of every client in a run."""
    store = federation.store.inputs.reshape(len(federation.store), -1)[:, 0].astype(np.float64)
    return [store[federation.rows(run, client, 1)] for client in range(federation.num_clients)]


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("partition", [{"kind": "iid"}, {"kind": "dirichlet", "alpha": 0.5, "min_rows": 2}])
def test_federated_mean_is_the_mean_of_records_by_any_partition(server: str, partition: dict[str, Any]) -> None:
    found, federation = means(server, partition=partition)
    for run in range(2):
        everything = np.concatenate(held(federation, run))
        assert found[run] == pytest.approx(everything.mean(), abs=1e-12)
    # So the influence of the records that differ between two runs is analytic too.
    sums = [np.concatenate(held(federation, run)) for run in range(2)]
    analytic = sums[0].sum() / len(sums[0]) - sums[1].sum() / len(sums[1])
    assert found[0] - found[1] == pytest.approx(analytic, abs=1e-12)
    assert abs(analytic) > 1e-6


@pytest.mark.parametrize("server", ["messages", "rule"])
def test_uniform_weights_give_the_mean_of_client_means(server: str) -> None:
    skewed = {"kind": "dirichlet", "alpha": 0.3, "min_rows": 2}
    found, federation = means(server, partition=skewed, strategy={"kind": "fedavg", "weighting": "uniform"})
    clients = [part.mean() for part in held(federation, 0)]
    assert found[0] == pytest.approx(np.mean(clients), abs=1e-12)
    assert found[0] != pytest.approx(np.concatenate(held(federation, 0)).mean(), abs=1e-5)


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("clients", [4, 5])
def test_the_median_is_the_middle_client(server: str, clients: int) -> None:
    found, federation = means(server, clients=clients, strategy={"kind": "fedmedian"})
    for run in range(2):
        ordered = sorted(part.mean() for part in held(federation, run))
        middle = ordered[(clients - 1) // 2], ordered[clients // 2]
        assert found[run] == pytest.approx(sum(middle) / 2, abs=1e-12)
