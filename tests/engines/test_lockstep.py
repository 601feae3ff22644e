"""The lockstep engine: real Flower strategies, equal paths, equal bytes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fedmem.bank import Simulated, simulate
from fedmem.clients.sgd import Sgd
from fedmem.errors import RunError
from fedmem.federation import build
from fedmem.scenario import Scenario
from fedmem.types import Params, Transition
from tests.tiny import tiny

ONE_BY_ONE = {"executor": "one_by_one"}


def trained(scenario: Scenario, **how: Any) -> Simulated:
    return simulate(scenario, build(scenario), **how)


def same(one: Sequence[Params], other: Sequence[Params]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )


def close(one: Sequence[Params], other: Sequence[Params], rtol: float = 1e-4) -> None:
    for a, b in zip(one, other, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("executor", ["one_by_one", "stacked"])
def test_twice_the_same_bytes(executor: str) -> None:
    scenario = tiny(speed={"executor": executor})
    one, other = trained(scenario), trained(scenario)
    assert same(one.params, other.params)
    for a, b in zip(one.bank.evidence, other.bank.evidence, strict=True):
        assert np.array_equal(a.margin, b.margin)


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
def test_a_bank_equals_its_runs_one_by_one(strategy: str) -> None:
    scenario = tiny(speed=ONE_BY_ONE, strategy={"kind": strategy})
    together = trained(scenario)
    for run in range(scenario.runs):
        assert same(trained(scenario, runs=[run]).params, [together.params[run]])


def test_runs_differ() -> None:
    params = trained(tiny()).params
    assert not same(params[:1], params[1:2])


def test_stacked_and_one_by_one_agree() -> None:
    close(trained(tiny(speed=ONE_BY_ONE)).params, trained(tiny(speed={"executor": "stacked"})).params)


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
@pytest.mark.parametrize("sampler", [{"kind": "uniform", "size": 3}, {"kind": "poisson", "rate": 0.3}])
def test_the_rule_path_equals_the_message_path(strategy: str, sampler: dict[str, Any]) -> None:
    messages = tiny(strategy={"kind": strategy}, sampler=sampler, speed=ONE_BY_ONE)
    rule = tiny(strategy={"kind": strategy}, sampler=sampler, speed={**ONE_BY_ONE, "server": "rule"})
    one, other = trained(messages), trained(rule)
    assert (one.server, other.server) == ("messages", "rule")
    assert same(one.params, other.params)
    assert one.bank.participation == other.bank.participation
    for a, b in zip(one.bank.evidence, other.bank.evidence, strict=True):
        assert (a.round, a.level, a.set) == (b.round, b.level, b.set)
        assert np.array_equal(a.margin, b.margin)


def test_runs_start_from_their_own_weights_if_the_scenario_says_so() -> None:
    """Round 0 is observed before anything is trained, so that it shows where a run starts."""

    def asked(weights: str, server: str) -> Scenario:
        return tiny(rounds=2, runs=2, initial_weights=weights, speed={**ONE_BY_ONE, "server": server})

    shared, messages, rule = (
        trained(asked(*way)) for way in (("shared", "rule"), ("own", "messages"), ("own", "rule"))
    )
    starts = [done.bank.evidence[0].margin for done in (shared, messages, rule)]
    assert [np.array_equal(*start) for start in starts] == [True, False, False]
    np.testing.assert_array_equal(starts[1], starts[2])
    close(messages.params, rule.params)
    assert same(trained(asked("own", "messages"), runs=[1]).params, [messages.params[1]])
    assert not same(messages.params, shared.params)


def test_watching_cannot_be_noticed() -> None:
    scenario = tiny(probes=[{"kind": "utility"}])
    assert same(trained(scenario).params, trained(scenario, watch=False).params)


def test_the_samplers_stream_touches_neither_injection_nor_initialisation() -> None:
    one = build(tiny())
    other = build(tiny(sampler={"kind": "everyone"}))
    assert np.array_equal(one.store.inputs, other.store.inputs)
    assert np.array_equal(one.audit.is_in, other.audit.is_in)
    assert np.array_equal(one.fill, other.fill)
    assert all(torch.equal(one.initial[name], other.initial[name]) for name in one.initial)


def test_an_empty_cohort_keeps_the_model_and_is_recorded() -> None:
    scenario = tiny(sampler={"kind": "poisson", "rate": 0.02}, observe={"every": 1, "levels": ["local", "global"]})
    result = trained(scenario)
    busy = {part.round for part in result.bank.participation}
    assert 0 < len(busy) < 4
    seen = {e.round: e for e in result.bank.evidence if e.level == "global" and e.set == "test"}
    assert set(seen) == set(range(5))
    assert {e.round for e in result.bank.evidence if e.level == "local"} == busy
    for round in range(1, 5):
        kept = np.array_equal(seen[round].margin, seen[round - 1].margin)
        assert kept == (round not in busy)


def test_the_roster_is_shared_unless_each_run_draws_its_own() -> None:
    def cohorts(scenario: Scenario) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for part in trained(scenario).bank.participation:
            found.setdefault(part.run, []).append((part.round, part.client))
        return found

    shared, own = cohorts(tiny()), cohorts(tiny(roster="own"))
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


def test_global_generators_are_seeded_for_the_strategy_and_put_back() -> None:
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
        SCORES.append(float(metrics["accuracy"]))  # type: ignore[arg-type]
        return metrics


@pytest.mark.parametrize(
    "kind", ["FedAvg", "FedMedian", "FedTrimmedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "FedProx", "Krum"]
)
def test_flowers_own_strategies_run(kind: str) -> None:
    scenario = tiny(strategy={"kind": f"flwr.serverapp.strategy:{kind}"}, sampler={"kind": "everyone"}, rounds=2)
    result = trained(scenario)
    assert all(torch.isfinite(value).all() for params in result.params for value in params.values())
    assert all(value.dtype == torch.float32 for params in result.params for value in params.values())
    assert not same(result.params[:1], result.params[1:2])


def test_a_strategy_that_trains_half_of_the_cohort_is_told_so() -> None:
    half = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    with pytest.raises(RunError, match=r"round 1: strategy FedAvg trains 1 clients.*fraction_train: 1.0"):
        trained(tiny(strategy=half))
    result = trained(tiny(strategy=half, cohort="strategy"))
    assert len(result.bank.participation) == 4 * 4 * 1


def test_a_strategy_that_waits_for_more_nodes_is_told_that_none_will_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flwr.serverapp.strategy.strategy_utils.sleep", lambda seconds: None)
    greedy = {"kind": "flwr.serverapp.strategy:FedAvg", "min_available_nodes": 4}
    with pytest.raises(RunError, match=r"waits for more nodes than the 3.*min_available_nodes"):
        trained(tiny(strategy=greedy))


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


def test_a_failing_client_ends_the_run_with_round_client_and_cause() -> None:
    FAILURES.clear()
    scenario = tiny(client={"kind": f"{__name__}:Fragile", "lr": 0.1}, speed=ONE_BY_ONE, runs=1, rounds=2)
    with pytest.raises(RunError, match=r"round 1: 1 of 3 clients failed.*out of battery.*tolerate\.failed"):
        trained(scenario)


def test_a_tolerated_failure_is_recorded() -> None:
    FAILURES.clear()
    scenario = tiny(
        client={"kind": f"{__name__}:Fragile", "lr": 0.1},
        speed=ONE_BY_ONE,
        runs=1,
        rounds=1,
        tolerate={"failed": 0.4},
        observe={"every": 1},
    )
    parts = trained(scenario).bank.participation
    assert [part.failed for part in parts].count(True) == 1
    assert len(parts) == 3


def test_local_models_survive_a_strategy_that_empties_its_replies() -> None:
    """FedMedian pops the arrays out of the replies; the local evidence was taken from copies."""
    median = trained(tiny(strategy={"kind": "fedmedian"}, rounds=1, observe={"every": 1}))
    mean = trained(tiny(rounds=1, observe={"every": 1}))
    local = [next(e for e in r.bank.evidence if e.level == "local" and e.set == "audit") for r in (median, mean)]
    assert np.array_equal(local[0].margin, local[1].margin)
    ends = [[e for e in r.bank.evidence if e.level == "global" and e.set == "audit"][-1] for r in (median, mean)]
    assert not np.array_equal(ends[0].margin, ends[1].margin)


def test_federated_mean_of_scalars_has_the_analytic_influence() -> None:
    """Oracle: one full-batch step on a quadratic moves each client to its own mean; FedAvg by size gives the mean of
    all records, whatever the partition, so one record moves it by (its value - mean of the others) / n."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    sizes = [1, 4, 10, 15]
    federated = _federated_mean(values, sizes)
    assert federated == pytest.approx(values.mean(), abs=1e-6)
    without = _federated_mean(values[1:], [4, 10, 15])
    assert federated - without == pytest.approx((values[0] - values[1:].mean()) / 30, abs=1e-6)
    assert federated - without != pytest.approx((values[0] - values[1:].mean()) / 29, abs=1e-4)


def _federated_mean(values: np.ndarray[Any, Any], sizes: list[int]) -> float:
    from strategies._rule import Round
    from strategies.fedavg import FederatedAveraging

    ends = np.cumsum(sizes)
    means = [float(values[end - size : end].mean()) for size, end in zip(sizes, ends, strict=True)]
    after, _ = FederatedAveraging().rule(
        {},
        Round(
            number=1,
            before={"w": torch.zeros(1, 1)},
            sent={"w": torch.tensor(means, dtype=torch.float32).reshape(1, -1, 1)},
            weights=torch.tensor([sizes], dtype=torch.float64),
            present=torch.ones((1, len(sizes)), dtype=torch.bool),
            clients=torch.arange(len(sizes))[None],
        ),
    )
    return float(after["w"])


def test_transitions_are_what_the_model_did() -> None:
    """Global `before` of a round is the global `kept` of the round before; locals start from it."""
    seen: list[Transition] = []

    class Everything:
        def wants(self, round: int) -> bool:
            return True

        def see(self, transitions: Sequence[Transition]) -> None:
            seen.extend(transitions)

    from fedmem.engines.lockstep import Lockstep
    from fedmem.training import LocalWork, OneByOne

    scenario = tiny(runs=2)
    federation = build(scenario)
    executor = OneByOne(federation.model, scenario.client, federation.store)
    work = LocalWork(federation, scenario.client, scenario.seed)
    finished = Lockstep(scenario, federation, executor, work, Everything()).train(range(2))
    for run in range(2):
        globals_ = [t for t in seen if t.run == run and t.level == "global"]
        assert [t.round for t in globals_] == list(range(5))
        for earlier, later in pairwise(globals_):
            assert all(torch.equal(earlier.kept[name], later.before[name]) for name in earlier.kept)
        assert same([globals_[-1].kept], [finished.params[run]])
        for local in (t for t in seen if t.run == run and t.level == "local"):
            before = globals_[local.round].before
            assert all(torch.equal(local.before[name], before[name]) for name in before)
            assert local.client in globals_[local.round].clients
            assert {"steps", "loss"} <= set(local.report)
