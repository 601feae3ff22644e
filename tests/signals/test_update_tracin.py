"""Tests of `fedmem/signals/update_tracin.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.arrays import FloatArray, Params
from fedmem.signals.update_alignment import UpdateAlignment
from fedmem.signals.update_tracin import UpdateTracIn
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

SIZES = {0: 10, 2: 30}


def descent(bench: Bench, sent: Params, before: Params) -> FloatArray:
    context = bench.context(bench.transition(sent, before=before, level="local", client=0))
    return np.asarray(UpdateAlignment().values(context)["update_descent"][0])


@pytest.mark.parametrize(("strategy", "shares"), [("fedavg", (0.25, 0.75)), ("fedmedian", (0.5, 0.5))])
def test_clients_sum_their_weighted_descents_over_rounds(strategy: str, shares: tuple[float, ...]) -> None:
    bench, signal = Bench(strategy={"kind": strategy}), UpdateTracIn()
    expected = np.zeros((2, len(bench.examples)))
    states: dict[int, dict[str, FloatArray]] = {}
    for number in (1, 2):
        before = bench.params(number)
        cohort = bench.transition(before, round_number=number, clients=tuple(SIZES), num_examples=40)
        for place, (client, share) in enumerate(zip(SIZES, shares, strict=True)):
            sent = bench.params(10 * number + client)
            place_of: dict[str, Any] = {"round_number": number, "level": "local", "client": client}
            context = bench.context(bench.transition(sent, before=before, num_examples=SIZES[client], **place_of))
            context.know_models([cohort], {})
            state = states.get(client) or signal.start(context, 0)
            states[client] = signal.update(state, context, 0)
            expected[place] += share * descent(bench, sent, before)
    found = np.stack([signal.values_of(states[client], context)["update_tracin"] for client in SIZES])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert not np.allclose(found, expected / np.array(shares)[:, None])


def test_the_aggregate_sums_clients_from_the_first_round_on() -> None:
    bench, signal = Bench(), UpdateTracIn()
    before, sent = bench.params(1), [bench.params(2), bench.params(3)]
    mean = {name: 0.25 * sent[0][name].double() + 0.75 * sent[1][name].double() for name in before}
    context = bench.context(bench.transition(mean, before=before))
    start = bench.context(bench.transition(before, before=bench.params(4), round_number=0))
    state = signal.update(signal.start(start, 0), start, 0)
    assert (state["sum"] == 0).all()
    found = signal.update(state, context, 0)["sum"]
    clients = [descent(bench, each, before) for each in sent]
    np.testing.assert_allclose(found, 0.25 * clients[0] + 0.75 * clients[1], rtol=1e-6, atol=1e-9)


def test_no_cohort_and_diverged_models_are_undefined() -> None:
    bench, signal = Bench(), UpdateTracIn()
    alone = bench.context(bench.transition(bench.params(2), before=bench.params(1), level="local", client=0))
    assert np.isnan(signal.update(signal.start(alone, 0), alone, 0)["sum"]).all()
    sent = bench.params(2)
    sent["output.bias"][0] = math.nan
    diverged = bench.context(bench.transition(sent, before=bench.params(1)))
    assert np.isnan(signal.update(signal.start(diverged, 0), diverged, 0)["sum"]).all()


def test_owners_descend_their_own_examples_most(tmp_path: Path) -> None:
    scenario = tiny(runs=4, rounds=3, observe={"every": 1}, bootstrap=20, signals=[{"kind": "update_tracin"}])
    run = fedmem.read(fedmem.run(scenario, out=tmp_path))
    signals = run.signals[(run.signals.name == "update_tracin") & (run.signals["round"] > 0)]
    whole = signals[(signals["round"] == 3) & (signals.level == "global")]
    local = signals[signals.level == "local"]
    # the last value of each client is its sum; over clients, it is that of the aggregate
    last = local.sort_values("round").groupby(["run", "client", "subject"]).value.last()
    total = last.groupby(["run", "subject"]).sum()
    found = whole.set_index(["run", "subject"]).value.sort_index()
    np.testing.assert_allclose(found.to_numpy(), total.sort_index().to_numpy(), rtol=1e-3, atol=1e-4)
