"""What a bank demands of a Flower strategy, on the small app of tests/observation/test_observed.py."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Error, Message
from flwr.serverapp.strategy import FedAvg

from fedmem import Observed
from fedmem.contracts.evidence import Transition
from fedmem.engines._flower import FIRST_NODE, in_process
from fedmem.engines.directed import Demands, Directed
from fedmem.errors import RunError
from fedmem.federation.roster import client_at
from fedmem.guards.guarding import PartError
from tests.observation.observed_helpers import CLIENTS, app_grid, initial


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


class Cohorts:
    """Two clients in odd rounds, nobody in even ones."""

    def cohort(self, round_number: int) -> Sequence[int]:
        return (1, 3) if round_number % 2 else ()

    def node(self, client: int) -> int:
        return FIRST_NODE + client


class Everything:
    def __init__(self) -> None:
        self.seen: list[Transition] = []

    def observes_round(self, round_number: int) -> bool:
        return True

    def see(self, transitions: Any) -> None:
        self.seen.extend(transitions)


def train(strategy: FedAvg, demands: Demands, rounds: int = 1, order: Any = list, cohorts: Any = None) -> Any:
    watcher = Everything()
    directed = Directed(strategy, cohorts or Cohorts(), demands, run=2)
    observed = Observed(directed, watcher, run=2, client_of=client_at)
    result = observed.start(grid=app_grid(order), initial_arrays=initial(), num_rounds=rounds)
    return result, watcher.seen


def fedavg(**others: Any) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, **others)


def test_the_cohort_trains_and_an_empty_round_keeps_the_model() -> None:
    result, seen = train(fedavg(), Demands(seed=0), rounds=2)
    assert [t.client for t in seen if t.level == "local"] == [1, 3]
    first, empty = [t for t in seen if t.level == "global" and t.round]
    assert (first.clients, empty.clients, empty.num_examples) == ((1, 3), (), 0)
    for name, array in result.arrays.items():
        assert np.array_equal(array.numpy(), first.kept[name].numpy())
        assert np.array_equal(array.numpy(), empty.kept[name].numpy())


def test_strategy_that_trains_outside_the_cohort_is_refused() -> None:
    with pytest.raises(RunError, match=r"round 1: strategy FedAvg trains 1 clients where the sampler chose 2"):
        train(fedavg(fraction_train=0.5), Demands(seed=0))
    _, seen = train(fedavg(fraction_train=0.5), Demands(seed=0, enforce=False))
    assert len([t for t in seen if t.level == "local"]) == 1


def failing(replies: list[Message]) -> list[Message]:
    """The first reply is a failure."""
    asked = Message(replies[0].content, dst_node_id=replies[0].metadata.src_node_id, message_type="train")
    return [Message(Error(1, "no battery"), reply_to=asked), *replies[1:]]


def test_failures_beyond_the_tolerance_end_the_run_unseen() -> None:
    watcher = Everything()
    directed = Directed(fedavg(), Cohorts(), Demands(seed=0))
    with pytest.raises(RunError, match=r"round 1: 1 of 2 clients failed, first client 1: no battery"):
        Observed(directed, watcher).start(grid=app_grid(failing), initial_arrays=initial(), num_rounds=1)
    assert {t.round for t in watcher.seen} == {0}
    assert directed.failed == {1: (1,)}
    _, seen = train(fedavg(), Demands(seed=0, tolerate=0.5), order=failing)
    assert [t.client for t in seen if t.level == "local"] == [3]


class Swallowing(FedAvg):
    """Catches every error of a step."""

    def start(self, grid: Any, initial_arrays: ArrayRecord, num_rounds: int = 3, *others: Any, **named: Any) -> Any:
        try:
            return super().start(grid, initial_arrays, num_rounds, *others, **named)
        except Exception:
            return None


def test_a_strategy_that_catches_the_error_does_not_hide_it() -> None:
    with pytest.raises(RunError, match="no battery"):
        train(Swallowing(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1), Demands(seed=0), 1, failing)


def test_a_returned_model_is_checked_before_a_watcher_sees_it() -> None:
    class Renamed(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            return ArrayRecord({f"my.{name}": array for name, array in arrays.items()}), metrics

    watcher = Everything()
    strategy = Renamed(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    with pytest.raises(PartError, match=r"its model lacks the parameter 'fc1\.bias'"):
        Observed(Directed(strategy, Cohorts(), Demands(seed=0)), watcher).start(
            grid=app_grid(), initial_arrays=initial(), num_rounds=1
        )
    assert [t.level for t in watcher.seen] == ["global", "local", "local"]


class Drawing(FedAvg):
    """Notes what the global generators give in each step."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.drawn: list[tuple[float, float]] = []

    def configure_train(self, *arguments: Any) -> Any:
        self.drawn.append((random.random(), float(np.random.random())))  # noqa: NPY002
        return super().configure_train(*arguments)


def test_the_global_generators_are_seeded_and_restored() -> None:
    def drawn(seed: int) -> list[tuple[float, float]]:
        strategy = Drawing()
        train(strategy, Demands(seed=seed), cohorts=Everyone())
        return strategy.drawn

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert drawn(0) == drawn(0) != drawn(1)
    after = random.random(), float(np.random.random())  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert after == (random.random(), float(np.random.random()))  # noqa: NPY002


class Everyone(Cohorts):
    def cohort(self, round_number: int) -> Sequence[int]:
        return range(CLIENTS)


class Noisy(FedAvg):
    """Draws in each of the ways in which a strategy of a user's may."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.mine = np.random.default_rng(0)
        self.old = np.random.RandomState(0)
        self.torch = torch.Generator().manual_seed(0)
        self.python = random.Random(0)
        self.drawn: list[tuple[float, ...]] = []

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        draws = (random.random(), np.random.random(), torch.rand(()), self.mine.random(), self.old.random())  # noqa: NPY002
        others = (torch.rand((), generator=self.torch), self.python.random())
        self.drawn.append(tuple(float(value) for value in (*draws, *others)))
        return super().aggregate_train(server_round, replies)


def test_no_draw_of_a_strategy_is_shared_by_two_runs() -> None:
    def draws(run: int) -> list[tuple[float, ...]]:
        strategy = Noisy()
        directed = Directed(strategy, Everyone(), Demands(seed=0), run=run)
        directed.start(grid=app_grid(list), initial_arrays=initial(), num_rounds=2)
        return strategy.drawn

    before = torch.get_rng_state()
    first, again, other = draws(0), draws(0), draws(1)
    assert torch.equal(before, torch.get_rng_state())
    assert first == again
    columns = list(zip(*first, *other, strict=True))
    assert len(columns) == 7
    assert all(len(set(column)) == 4 for column in columns)
