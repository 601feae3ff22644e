"""One client that holds everything: the same rows, coins and passes as the federation that it is compared with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedmem
from fedmem.contracts.federation import Federation
from fedmem.errors import ScenarioError
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.training.client_work import LocalWork
from fedmem.training.one_by_one import OneByOne
from tests.tiny import TINY, tiny

FEDERATED: dict[str, Any] = {
    "sampler": {"kind": "everyone"},
    "client": {"kind": "sgd", "lr": 0.2, "epochs": 2, "batch_size": 8},
    "injections": [
        {"kind": "random_pattern", "per_client": 2, "copies": 3},
        {"kind": "typical", "per_client": 2, "start": 2},
    ],
}
ORDERS = pytest.mark.parametrize("order", ["shuffled", "by_client"])


def met(federation: Federation, scenario: Any, run: int, round_number: int) -> Counter[int]:
    """How often each row of the store is trained on in a round."""
    work = LocalWork(federation, scenario.client, scenario.seed)
    found: Counter[int] = Counter()
    for client in range(federation.num_clients):
        task = work.task(run, round_number, client, {})
        found.update(task.rows[task.batches[task.batches >= 0]].tolist())
    return found


@ORDERS
@pytest.mark.parametrize("exclusion", ["replace", "remove"])
def test_every_row_is_passed_as_often_and_coins_are_the_same(order: str, exclusion: str) -> None:
    many, one = tiny(**FEDERATED, exclusion=exclusion), tiny(**FEDERATED, exclusion=exclusion, central=order)
    federated, central = build(many), build(one)
    assert (federated.num_clients, central.num_clients) == (5, 1)
    np.testing.assert_array_equal(central.audit.is_in, federated.audit.is_in)
    np.testing.assert_array_equal(central.store.inputs, federated.store.inputs)
    assert all(torch.equal(central.initial[name], value) for name, value in federated.initial.items())
    for number in range(4):
        for round_number in (1, 3):
            assert met(central, one, number, round_number) == met(federated, many, number, round_number)
            zero = np.array([0])
            assert central.sizes_of(zero + number, zero, round_number) == len(central.rows(number, 0, round_number))
    # and they are not the same in all rounds, nor in all runs
    assert met(central, one, 0, 1) != met(central, one, 0, 3)
    assert met(central, one, 0, 3) != met(central, one, 1, 3)


def test_central_by_client_passes_one_model_along() -> None:
    many, one = tiny(**FEDERATED), tiny(**FEDERATED, central="by_client")
    federated, central = build(many), build(one)
    before = federated.initial
    for client in range(5):
        task = LocalWork(federated, many.client, many.seed).task(1, 2, client, before)
        (trained,) = OneByOne(federated.model, many.client, federated.store).train([task])
        before = trained.outcome.sent
    for order, same in (("by_client", True), ("shuffled", False)):
        other = build(tiny(**FEDERATED, central=order))
        work = LocalWork(other, one.client, one.seed).task(1, 2, 0, central.initial)
        (trained,) = OneByOne(other.model, one.client, other.store).train([work])
        close = all(
            torch.allclose(trained.outcome.sent[name], value, rtol=1e-4, atol=1e-6) for name, value in before.items()
        )
        assert close == same


@ORDERS
def test_a_central_scenario_is_measured_as_any_other(order: str, tmp_path: Path) -> None:
    estimators = [{"kind": "memorisation"}, {"kind": "exposure"}]
    scenario = tiny(**FEDERATED, central=order, estimators=estimators, probes=[{"kind": "utility"}])
    found = fedmem.read(run(scenario, out=tmp_path))
    assert set(found.audit.owner) == {0}
    rows = found.measurements
    for metric, kinds in (("memorisation", {"random_pattern", "typical"}), ("exposure", {"random_pattern"})):
        here = rows[(rows.metric == metric) & (rows.level == "global") & rows.subject.isin(kinds)]
        assert set(here.subject) == kinds
        assert here.value.notna().all()


def test_scenarios_that_are_not_central_keep_their_ids() -> None:
    assert tiny().id != tiny(**FEDERATED).id
    assert tiny(**FEDERATED).id != tiny(**FEDERATED, central="shuffled").id
    assert tiny(**FEDERATED, central=None) == tiny(**FEDERATED)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sampler": TINY["sampler"]}, "sampler.kind: central training cannot use uniform"),
        ({"strategy": {"kind": "fedmedian"}}, "nothing to aggregate; use fedavg"),
        ({"client": {"kind": "sgd", "steps": 3}}, "client.steps: 3 steps are of each client"),
        ({"client": {"kind": "top_k"}}, "client.kind: central training cannot use top_k"),
        ({"leave_out": {"clients": "all"}}, "no clients to leave out"),
        ({"defences": [{"kind": "clip", "norm": 1.0}]}, "no update leaves"),
        ({"speed": {"engine": "flower"}}, "use engine: lockstep"),
    ],
)
def test_invalid_central_scenarios_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        tiny(**{**FEDERATED, **changes, "central": "shuffled"})
