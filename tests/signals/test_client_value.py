"""Tests of `fedmem/signals/client_value.py`."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.errors import ComponentError, ScenarioError
from fedmem.observation.signals import _SignalContext
from fedmem.signals._cohort import utilities_of
from fedmem.signals.client_value import ClientValue, Method
from tests.signals.cohort_helpers import mean_of, round_of, utility
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

ALL: tuple[Method, ...] = ("exact", "gtg", "leave_one_out", "completed")


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def read(signal: ClientValue, *contexts: _SignalContext) -> dict[str, FloatArray]:
    """The values after these rounds by variant, (n,) each."""
    state = signal.start(contexts[0], 0)
    for context in contexts:
        state = signal.update(state, context, 0)
    values = signal.values_of(state, contexts[-1])["client_value"]
    names = signal.variant_names(contexts[0].federation)["client_value"]
    assert values.shape == (len(contexts[0].examples), len(names))
    return dict(zip(names, values.T, strict=True))


def by_orders(bench: Bench, models: dict[int, Params], sizes: dict[int, int], before: Params) -> dict[int, FloatArray]:
    """(2, n) the Shapley value of each client of a cohort by enumerating orders and averaging models."""
    values = {client: np.zeros_like(utility(bench, before)) for client in models}
    orders = list(permutations(models))
    for order in orders:
        last = utility(bench, before)
        for number, client in enumerate(order):
            members = order[: number + 1]
            model = mean_of([models[k] for k in members], [sizes[k] for k in members])
            now = utility(bench, model)
            values[client] += (now - last) / len(orders)
            last = now
    return values


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_exact_values_are_those_of_all_orders_summed_over_rounds(weighting: str) -> None:
    bench = Bench(strategy={"kind": "fedavg", "weighting": weighting})
    rounds, expected = [], dict.fromkeys(range(5), np.zeros((2, 100)))
    for number, sizes in ((1, {0: 7, 2: 3, 3: 11}), (2, {2: 4, 4: 1})):
        before, models = bench.params(10 * number), {k: bench.params(10 * number + k + 1) for k in sizes}
        rounds.append(round_of(bench, models, before=before, sizes=sizes, round_number=number))
        weights = sizes if weighting == "size" else dict.fromkeys(sizes, 1)
        for client, values in by_orders(bench, models, weights, before).items():
            expected[client] = expected[client] + values
    found = read(ClientValue(methods=("exact",)), *rounds)
    for client in range(5):
        for place, name in enumerate(("accuracy", "loss")):
            np.testing.assert_allclose(found[f"exact.{name}.{client}"], expected[client][place], atol=2e-5)
    assert [found[f"participations.{k}"][0] for k in range(5)] == [1, 0, 2, 1, 1]
    assert not found["exact.loss.1"].any()


def cohort(bench: Bench, clients: int = 4, **more: Any) -> _SignalContext:
    models = {k: bench.params(k + 1) for k in range(clients)}
    return round_of(bench, models, before=bench.params(), sizes={k: 2 + k for k in models}, **more)


def test_values_sum_to_the_gain_of_the_round(bench: Bench) -> None:
    context = cohort(bench)
    found = read(ClientValue(methods=("exact", "gtg")), context)
    first, last = context.transitions[0].before, context.transitions[0].kept
    for method in ("exact", "gtg"):
        for place, name in enumerate(("accuracy", "loss")):
            total = sum(found[f"{method}.{name}.{k}"] for k in range(4))
            np.testing.assert_allclose(total, (utility(bench, last) - utility(bench, first))[place], atol=3e-5)


def test_efficiency_is_exact_in_the_evaluated_utilities(bench: Bench) -> None:
    context = cohort(bench)
    found = read(ClientValue(methods=("exact", "gtg")), context)
    values = utilities_of(context, [context.transitions[0].before, context.transitions[0].kept])
    for place, name in enumerate(("accuracy", "loss")):
        for method in ("exact", "gtg"):
            total = sum(found[f"{method}.{name}.{k}"] for k in range(4))
            np.testing.assert_allclose(total, values[place, 1] - values[place, 0], atol=1e-10)


def test_many_orders_of_gtg_come_near_the_exact_values(bench: Bench) -> None:
    found = read(ClientValue(methods=("exact", "gtg"), orders_per_client=200), cohort(bench))
    for client in range(4):
        exact, gtg = (found[f"{method}.loss.{client}"].mean() for method in ("exact", "gtg"))
        assert gtg == pytest.approx(exact, abs=0.05 * max(abs(found[f"exact.loss.{k}"].mean()) for k in range(4)))
    again = read(ClientValue(methods=("gtg",), orders_per_client=200), cohort(bench))
    np.testing.assert_array_equal(again["gtg.loss.1"], found["gtg.loss.1"])


def test_truncation_between_rounds_gives_zero(bench: Bench) -> None:
    found = read(ClientValue(methods=("gtg",), between=1e9), cohort(bench))
    assert not any(found[f"gtg.{name}.{k}"].any() for name in ("accuracy", "loss") for k in range(5))
    assert found["participations.0"][0] == 1


def test_identical_clients_are_worth_the_same(bench: Bench) -> None:
    same = bench.params(1)
    models = {0: same, 1: bench.params(2), 2: same}
    found = read(ClientValue(), round_of(bench, models, before=bench.params()))
    for method in ("exact", "leave_one_out"):
        np.testing.assert_allclose(found[f"{method}.loss.0"], found[f"{method}.loss.2"], atol=1e-12)
        assert not np.allclose(found[f"{method}.loss.0"], found[f"{method}.loss.1"])


def test_a_client_that_sends_what_it_received_is_no_dummy(bench: Bench) -> None:
    """It dilutes the others, since weights are renormalised; it has no value where the utility ignores models."""
    before = bench.params()
    found = read(ClientValue(), round_of(bench, {0: bench.params(1), 1: before}, before=before))
    assert np.abs(found["exact.loss.1"]).max() > 0.01
    unmoved = read(ClientValue(), round_of(bench, {0: before, 1: before}, before=before))
    assert np.abs(unmoved["exact.loss.0"]).max() < 1e-12


def test_leave_one_out_is_the_aggregate_minus_that_of_the_others(bench: Bench) -> None:
    context = cohort(bench, 3)
    found = read(ClientValue(methods=("leave_one_out",)), context)
    others = mean_of([bench.params(1), bench.params(3)], [2, 4])
    expected = utility(bench, context.transitions[0].kept) - utility(bench, others)
    np.testing.assert_allclose(found["leave_one_out.loss.1"], expected[1], atol=2e-5)
    alone = read(ClientValue(methods=("leave_one_out", "exact")), cohort(bench, 1))
    np.testing.assert_allclose(alone["leave_one_out.loss.0"], alone["exact.loss.0"], atol=1e-12)
    assert alone["exact.loss.0"].any()


def test_completed_values_are_exact_where_nobody_is_absent(bench: Bench) -> None:
    rounds = [cohort(bench, 5, round_number=1), cohort(bench, 5, round_number=2)]
    found = read(ClientValue(methods=("exact", "completed")), *rounds)
    for client in range(5):
        for name in ("accuracy", "loss"):
            exact, completed = found[f"exact.{name}.{client}"], found[f"completed.{name}.{client}"]
            assert completed[0] == pytest.approx(exact.mean(), abs=1e-9)
            assert np.ptp(completed) == 0


def test_absence_is_no_penalty_where_rounds_are_alike(bench: Bench) -> None:
    """Client 1 is absent in a round that is a copy of the other: completed, both have the value of both rounds."""
    models, before = {k: bench.params(k + 1) for k in range(5)}, bench.params()
    whole = round_of(bench, models, before=before)
    part = round_of(bench, {k: models[k] for k in (0, 2, 3, 4)}, before=before, round_number=2)
    found = read(ClientValue(methods=("exact", "completed"), rank=1), whole, part)
    twice = read(ClientValue(methods=("exact",)), whole, whole)
    for client in range(5):
        assert found[f"completed.loss.{client}"][0] == pytest.approx(twice[f"exact.loss.{client}"].mean(), abs=1e-3)
    assert found["exact.loss.1"].mean() == pytest.approx(twice["exact.loss.1"].mean() / 2)


def test_coalitions_never_seen_leave_completion_unknown(bench: Bench) -> None:
    found = read(ClientValue(methods=("completed",)), cohort(bench, 4))
    assert all(np.isnan(found[f"completed.loss.{k}"]).all() for k in range(5))
    nothing = read(ClientValue(methods=("completed", "exact")), round_of(bench, {}, before=bench.params()))
    assert np.isnan(nothing["completed.loss.0"]).all()
    assert not nothing["exact.loss.0"].any()


def test_a_model_that_has_diverged_makes_values_unknown(bench: Bench) -> None:
    broken = {name: torch.full_like(value, torch.nan) for name, value in bench.params().items()}
    models = {k: bench.params(k + 1) for k in range(4)} | {4: broken}
    found = read(ClientValue(methods=ALL), round_of(bench, models, before=bench.params()))
    for method in ALL:
        assert np.isnan(found[f"{method}.loss.0"]).all(), method
        assert np.isnan(found[f"{method}.accuracy.4"]).all(), method


def test_large_cohorts_are_refused_by_enumeration() -> None:
    bench = Bench(clients=11, dataset={"kind": "synthetic", "rows": 800, "test": 20})
    models = {k: bench.params(k + 1) for k in range(9)}
    context = round_of(bench, models, before=bench.params())
    with pytest.raises(ComponentError, match=r"round 1 has a cohort of 9.*8 clients at most"):
        read(ClientValue(methods=("exact",)), context)
    with pytest.raises(ComponentError, match=r"N = 11 clients of a run, and takes 10"):
        read(ClientValue(methods=("completed",)), context)
    read(ClientValue(methods=("gtg", "leave_one_out")), context)  # is not refused


@pytest.mark.parametrize("methods", [(), ("exact", "exact")])
def test_methods_are_named_once(methods: Any) -> None:
    with pytest.raises(ComponentError, match="one method or more"):
        ClientValue(methods=methods)


@pytest.mark.parametrize("strategy", ["fedmedian", "fedavgm", "krum", "norm_clipping"])
def test_strategies_that_take_no_mean_are_refused(strategy: str) -> None:
    with pytest.raises(ScenarioError, match=r"signals\[0\].*weighted mean"):
        tiny(strategy={"kind": strategy}, signals=[{"kind": "client_value"}], clients=5, sampler={"kind": "everyone"})
    tiny(strategy={"kind": strategy}, sampler={"kind": "everyone"})  # is not refused


def test_its_cost_counts_coalitions(bench: Bench) -> None:
    assert ClientValue().passes_in(bench.federation) == (32.0, 0.0)
    assert ClientValue(methods=("leave_one_out",)).passes_in(bench.federation) == (7.0, 0.0)
    assert ClientValue(methods=("gtg",), orders_per_client=1).passes_in(bench.federation)[0] <= 32 + 7
