"""The lockstep engine: real Flower strategies, equal paths, equal bytes."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.engines._flower import in_process
from fedmem.errors import RunError, ScenarioError
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.seeding import stream
from tests.engines.lockstep_helpers import ONE_BY_ONE, same, trained
from tests.narrowing import instance
from tests.tiny import tiny


def close(one: Sequence[Params], other: Sequence[Params], rtol: float = 1e-4) -> None:
    for a, b in zip(one, other, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
def test_equal_scenarios_give_equal_bytes(executor: str) -> None:
    scenario = tiny(speed={"executor": executor, "workers": 1})
    one, other = trained(scenario), trained(scenario)
    assert same(one.params, other.params)
    for a, b in zip(one.bank.evidence, other.bank.evidence, strict=True):
        assert np.array_equal(a.margin, b.margin)


def test_readings_of_a_run_are_the_same_alone_and_in_the_bank() -> None:
    """What the leakage probe draws belongs to (run, round, client), so shards of runs may be measured apart."""
    attack = {"kind": "inverting_gradients", "steps": 5}
    probe = {"kind": "leakage", "attack": attack, "runs": 4, "victims": 1, "rounds": [2]}
    data = {"kind": "synthetic", "rows": 250, "test": 50}
    scenario = tiny(speed=ONE_BY_ONE, probes=[probe], dataset=data)
    together = [m for m in trained(scenario).measurements if m.run == 1]
    alone = [m for m in trained(scenario, runs=[1]).measurements if m.run == 1]
    assert [m.reading.metric for m in alone] == [m.reading.metric for m in together]
    assert together
    values = np.array([[a.reading.value, b.reading.value] for a, b in zip(alone, together, strict=True)])
    np.testing.assert_allclose(values[:, 0], values[:, 1], atol=1e-3)


def test_runs_of_a_bank_have_different_parameters() -> None:
    params = trained(tiny()).params
    assert not same(params[:1], params[1:2])


def test_stacked_and_one_by_one_agree() -> None:
    close(trained(tiny(speed=ONE_BY_ONE)).params, trained(tiny(speed={"executor": "stacked"})).params)


def test_runs_start_from_own_weights_if_requested() -> None:
    """Round 0 is observed before anything is trained, so that it shows where a run starts."""

    def asked(weights: str, server: str) -> Scenario:
        return tiny(rounds=2, runs=2, initial_weights=weights, speed={**ONE_BY_ONE, "server": server})

    shared, messages, rule = (
        trained(asked(*way)) for way in (("shared", "rule"), ("per_run", "messages"), ("per_run", "rule"))
    )
    starts = [done.bank.evidence[0].margin for done in (shared, messages, rule)]
    assert [np.array_equal(*start) for start in starts] == [True, False, False]
    np.testing.assert_array_equal(starts[1], starts[2])
    close(messages.params, rule.params)
    assert same(trained(asked("per_run", "messages"), runs=[1]).params, [messages.params[1]])
    assert not same(messages.params, shared.params)


def test_sampler_stream_changes_neither_injections_nor_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained(tiny())

    def other_roster(seed: int, purpose: str, **place: Any) -> np.random.Generator:
        return stream(seed, f"other {purpose}" if purpose == "roster" else purpose, **place)

    monkeypatch.setattr("fedmem.federation.roster.stream", other_roster)
    other = trained(tiny())
    assert one.bank.participation != other.bank.participation
    assert np.array_equal(one.bank.audit.is_in, other.bank.audit.is_in)
    assert np.array_equal(one.bank.audit.examples.inputs, other.bank.audit.examples.inputs)
    # Round 0 shows the initial weights on the injected examples; the last round what the cohorts made of them.
    ends = [[e for e in bank.evidence if e.level == "global" and e.set == "audit"] for bank in (one.bank, other.bank)]
    assert np.array_equal(ends[0][0].margin, ends[1][0].margin)
    assert not np.array_equal(ends[0][-1].margin, ends[1][-1].margin)


def test_the_roster_is_shared_unless_each_run_draws_its_own() -> None:
    def cohorts(scenario: Scenario) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for part in trained(scenario).bank.participation:
            found.setdefault(part.run, []).append((part.round, part.client))
        return found

    shared, own = cohorts(tiny()), cohorts(tiny(roster="per_run"))
    assert len(shared[0]) == 4 * 3
    assert all(value == shared[0] for value in shared.values())
    assert any(value != own[0] for value in own.values())


# --- strategies that know nothing of fedmem ---------------------------------------------------------------------------


class Halving(FedAvg):
    """A user's own strategy: averages, then moves only half of the way."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.before = arrays.to_torch_state_dict()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        mean = arrays.to_torch_state_dict()
        return ArrayRecord({name: (self.before[name] + mean[name]) / 2 for name in mean}), metrics


class Restless(FedAvg):
    """Overrides `start`, draws from the global generators, trains and evaluates."""

    drawn: list[tuple[float, float]]

    def start(self, *args: Any, **kwargs: Any) -> Any:
        self.drawn = []
        return super().start(*args, **kwargs)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.drawn.append((random.random(), float(np.random.random())))  # noqa: NPY002
        COLLECTED.append(self.drawn[-1])
        return super().aggregate_train(server_round, replies)


COLLECTED: list[tuple[float, float]] = []


def test_a_users_own_strategy_works_unmodified() -> None:
    scenario = tiny(strategy={"kind": f"{__name__}:Halving"}, speed=ONE_BY_ONE, rounds=1, observe={"every": 1})
    plain = trained(tiny(speed=ONE_BY_ONE, rounds=1, observe={"every": 1}))
    halved = trained(scenario)
    initial = build(scenario).initial
    for whole, half in zip(plain.params, halved.params, strict=True):
        for name in initial:
            torch.testing.assert_close(half[name], (initial[name] + whole[name]) / 2)


def test_global_generators_are_seeded_and_restored_by_a_run() -> None:
    scenario = tiny(strategy={"kind": f"{__name__}:Restless"})
    random.seed(5)
    before = random.getstate()
    COLLECTED.clear()
    trained(scenario)
    first = list(COLLECTED)
    assert random.getstate() == before
    COLLECTED.clear()
    random.random()
    trained(scenario)
    assert first == COLLECTED
    assert len(set(first)) == len(first)


def test_a_strategy_that_evaluates_gets_answers() -> None:
    scenario = tiny(strategy={"kind": f"{__name__}:Evaluating", "fraction_evaluate": 1.0, "min_evaluate_nodes": 1})
    SCORES.clear()
    trained(scenario)
    assert len(SCORES) == 4 * 4
    assert all(0 <= score <= 1 for score in SCORES)


SCORES: list[float] = []


class Evaluating(FedAvg):
    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        metrics = super().aggregate_evaluate(server_round, replies)
        assert metrics is not None
        SCORES.append(instance(metrics["accuracy"], float))
        return metrics


class Instructing(FedAvg):
    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Any:
        config["hurry"] = 1.0
        return super().configure_train(server_round, arrays, config, grid)


def test_an_instruction_that_no_client_follows_ends_the_run() -> None:
    with pytest.raises(
        RunError, match=r"round 1: the strategy instructs its clients by 'hurry', which .* Sgd does not"
    ):
        trained(tiny(strategy={"kind": f"{__name__}:Instructing"}))


class Lazy(FedAvg):
    def start(self, *args: Any, **kwargs: Any) -> Any:
        return super().start(*args, **{**kwargs, "num_rounds": 1})


class Silent(FedAvg):
    def start(self, *args: Any, **kwargs: Any) -> Any:
        super().start(*args, **kwargs)


class Broken(FedAvg):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        raise ZeroDivisionError("of the server")


class Leaving(FedAvg):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        raise SystemExit(0)


class Narrow(FedAvg):
    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        return ArrayRecord({name: Array(array.numpy().reshape(-1)[:1]) for name, array in arrays.items()}), metrics


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Lazy", r"run 0: strategy Lazy stopped after round 1 of 4"),
        ("Silent", r"strategy Silent returned NoneType from start"),
        (
            "Broken",
            r"round 1, run 0: .*Broken failed in \w+: ZeroDivisionError: of the server \(.*test_lockstep.py:\d+\)",
        ),
        (
            "Leaving",
            r"round 1, run 0: strategy .*Leaving failed in \w+: SystemExit: 0 \(.*test_lockstep.py:\d+\)",
        ),
        ("Narrow", r"round 1, run 0: .*Narrow failed .* parameter '.*' is float32 of shape"),
    ],
)
def test_strategy_that_breaks_its_contract_gives_one_error(kind: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        trained(tiny(strategy={"kind": f"{__name__}:{kind}"}))


def test_strategy_that_samples_picks_equal_clients_in_every_run() -> None:
    half = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    everyone = {"kind": "everyone"}
    parts = trained(tiny(strategy=half, cohort_by="strategy", sampler=everyone, clients=8)).bank.participation
    cohorts = {run: {(p.round, p.client) for p in parts if p.run == run} for run in range(4)}
    assert all(cohort == cohorts[0] for cohort in cohorts.values())
    assert len({client for _, client in cohorts[0]}) > 4
    own = trained(
        tiny(strategy=half, cohort_by="strategy", sampler=everyone, clients=8, roster="per_run")
    ).bank.participation
    assert len({frozenset((p.round, p.client) for p in own if p.run == run) for run in range(4)}) > 1


class LateHalf(FedAvg):
    """Trains a half of the cohort, as no field says."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.fraction_train, self.min_train_nodes = 0.5, 1
        return super().configure_train(server_round, arrays, config, grid)


def test_strategy_that_trains_half_of_the_cohort_gets_an_error() -> None:
    half = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    with pytest.raises(ScenarioError, match=r"FedAvg has fraction_train 0.5, so it would train fewer clients"):
        tiny(strategy=half)
    with pytest.raises(RunError, match=r"round 1: strategy LateHalf trains 1 clients.*fraction_train: 1.0"):
        trained(tiny(strategy={"kind": f"{__name__}:LateHalf"}))
    result = trained(tiny(strategy=half, cohort_by="strategy"))
    assert len(result.bank.participation) == 4 * 4 * 1


# --- clients that fail ------------------------------------------------------------------------------------------------


class Fragile(Sgd):
    """Fails where the first row of its batch says so: deterministic, and the same in every run."""

    def batches(self, num_examples: int, rng: np.random.Generator) -> Any:
        return super().batches(num_examples, rng)

    def step(self, state: Any, gradient: Any) -> Any:
        FAILURES.append(1)
        if len(FAILURES) == 3:
            raise ValueError("out of battery")
        return super().step(state, gradient)


FAILURES: list[int] = []
HERE = ONE_BY_ONE
"""Counted in this process."""


def test_failing_client_ends_the_run_with_round_client_and_cause() -> None:
    FAILURES.clear()
    scenario = tiny(client={"kind": f"{__name__}:Fragile", "lr": 0.1}, speed=HERE, runs=1, rounds=2)
    with pytest.raises(RunError, match=r"round 1: 1 of 3 clients failed.*out of battery.*tolerate\.max_failed_share"):
        trained(scenario)


def test_a_tolerated_failure_is_recorded() -> None:
    FAILURES.clear()
    scenario = tiny(
        client={"kind": f"{__name__}:Fragile", "lr": 0.1},
        speed=HERE,
        runs=1,
        rounds=1,
        tolerate={"max_failed_share": 0.4},
        observe={"every": 1},
    )
    parts = trained(scenario).bank.participation
    assert [part.failed for part in parts].count(True) == 1
    assert len(parts) == 3


class Touchy(Sgd):
    """Fails where its first gradient is steep, so in some runs only; `vmap` cannot follow such a branch at all."""

    def step(self, state: Any, gradient: Any) -> Any:
        norm = torch.stack([g.square().sum() for g in gradient(state["params"]).values()]).sum().sqrt()
        if norm > STEEP[0]:
            raise ValueError("too steep")
        return super().step(state, gradient)


STEEP = [0.0]


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
def test_a_client_that_fails_in_one_run_is_dropped_in_all(server: str, executor: str) -> None:
    changes = {
        "client": {"kind": f"{__name__}:Touchy", "lr": 0.1, "epochs": 1, "batch_size": 100},
        "sampler": {"kind": "everyone"},
        "rounds": 1,
        "observe": {"every": 1},
        "speed": {"executor": executor, "server": server, "workers": 1},
    }
    STEEP[0] = 0.45
    with pytest.raises(RunError, match=r"round 1: \d of 5 clients failed, first client \d: ValueError: too steep"):
        trained(tiny(**changes))
    parts = trained(tiny(**changes, tolerate={"max_failed_share": 0.9})).bank.participation
    failed = {run: {p.client for p in parts if p.run == run and p.failed} for run in range(4)}
    assert 0 < len(failed[0]) < 5
    assert all(clients == failed[0] for clients in failed.values())
    assert len(parts) == 4 * 5


@pytest.mark.parametrize("server", ["messages", "rule"])
@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
def test_non_finite_model_is_a_failure_unless_tolerated(server: str, executor: str) -> None:
    changes = {
        "client": {"kind": "sgd", "lr": 1e30, "epochs": 1, "batch_size": 8},
        "rounds": 2,
        "speed": {"executor": executor, "server": server, "workers": 1},
    }
    with pytest.raises(RunError, match=r"round 1: 3 of 3 clients failed, first client \d: its model is not finite"):
        trained(tiny(**changes))
    passed = trained(tiny(**changes, tolerate={"not_finite": True}))
    assert not any(part.failed for part in passed.bank.participation)
    assert not all(torch.isfinite(value).all() for value in passed.params[0].values())


def test_local_evidence_survives_a_strategy_that_pops_replies() -> None:
    """FedMedian pops the arrays out of the replies; the local evidence was taken from copies."""
    median = trained(tiny(strategy={"kind": "fedmedian"}, rounds=1, observe={"every": 1}))
    mean = trained(tiny(rounds=1, observe={"every": 1}))
    local = [next(e for e in r.bank.evidence if e.level == "local" and e.set == "audit") for r in (median, mean)]
    assert np.array_equal(local[0].margin, local[1].margin)
    ends = [[e for e in r.bank.evidence if e.level == "global" and e.set == "audit"][-1] for r in (median, mean)]
    assert not np.array_equal(ends[0].margin, ends[1].margin)


def test_objects_are_frozen_for_garbage_collection_in_process() -> None:
    """Some strategies collect for every reply; going through all of torch each time takes longer than training."""
    with in_process():
        assert gc.get_freeze_count() > 1000
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError), in_process():
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0
