"""Strategies with differential privacy: what one client can move, what noise there is, and the traps of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from scipy.stats import kstest

from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process, local_record
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.observation.observed import params_of
from fedmem.strategies.dp_adaptive import DpAdaptive, noise_of_updates
from tests.cohorts import CLIENTS, by_messages, by_rule, cohort, drawn, flat, one_round, stacked
from tests.strategies.private_helpers import both, made
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


# --- without noise ----------------------------------------------------------------------------------------------------


@both
def test_updates_of_zero_are_no_problem(strategy: Any) -> None:
    before, there = made(3)
    after = one_round(strategy, there.sending([before] * 3), before)
    assert np.isfinite(flat(after)).all()


# --- noise ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("there", [0, 1, 6])
def test_noise_has_the_scale_of_the_clip_however_many_answer(strategy: Any, there: int) -> None:
    """Flower scales it for a configured number of replies while it divides by those that came."""
    before = {"w": torch.zeros(1, 40_000)}
    runs = stacked(1, [cohort(np.random.default_rng(0), max(there, 1))], {})
    sent = {"w": torch.zeros(1, max(there, 1), 40_000)}
    present = torch.full(runs.present.shape, bool(there))
    after, _ = strategy.rule(strategy.state(before, 9), replace(runs, before=before, sent=sent, present=present))
    z = noise_of_updates(strategy) if isinstance(strategy, DpAdaptive) else 1.0
    noise = after["w"][0].double().numpy() / (z * 0.5 / 4)
    assert kstest(noise, "norm").pvalue > 0.01
    assert noise.std() == pytest.approx(1.0, abs=0.02)


@both
def test_noise_is_that_of_the_run_and_the_round(strategy: Any) -> None:
    before, there = made(3)
    rounds = [[there.sending([before] * 3)] * 2] * 2
    first, _ = by_rule(strategy, rounds, [before, before])
    assert not np.allclose(first["layer.weight"][0], first["layer.weight"][1])
    again = by_rule(strategy, rounds, [before, before])[0]
    assert torch.equal(first["layer.weight"], again["layer.weight"])


# --- adaptive clipping ------------------------------------------------------------------------------------------------


# --- messages ---------------------------------------------------------------------------------------------------------


@both
def test_counters_and_statistics_are_not_released(strategy: Any) -> None:
    """Clients' counters and statistics would be published without noise; noised, a variance may become negative."""
    before, there = made(3)

    def with_norm(model: Any, count: int) -> Any:
        extra = {"norm.num_batches_tracked": torch.tensor(count), "norm.running_var": torch.tensor([count / 2, 1.0])}
        return {**model, **extra}

    full = there.sending([with_norm(model, 100 + k) for k, model in enumerate(there.sent)])
    after = by_messages(strategy, [full], with_norm(before, 4))[0]
    assert after["norm.num_batches_tracked"].dtype == torch.int64
    assert after["norm.num_batches_tracked"].item() == 4
    assert after["norm.running_var"].tolist() == [2.0, 1.0]
    plain = by_messages(strategy, [there], before)[0]
    assert torch.equal(after["layer.weight"], plain["layer.weight"])


@both
def test_round_without_clients_adds_noise(strategy: Any) -> None:
    before, _ = made()
    flower = strategy.make(0)
    flower.services.nodes = range(FIRST_NODE, FIRST_NODE + CLIENTS)
    flower.services.generators = lambda: (drawn(0, 1),)
    full = {**before, "norm.num_batches_tracked": torch.tensor(3)}
    after = params_of(flower.step_without_clients(1, local_record(full)))
    assert after.pop("norm.num_batches_tracked").item() == 3
    step = flat(after) - flat(before)
    assert np.all(step != 0)
    # and the next round goes on from there
    messages = list(flower.configure_train(2, local_record(after), ConfigRecord(), LocalGrid(CLIENTS, lambda m: [])))
    assert len(messages) == CLIENTS


@pytest.mark.parametrize(
    "strategy",
    [
        {"kind": "dp_fedavg", "clip": 0.2, "expected_cohort_size": 1.0},
        {"kind": "dp_adaptive", "initial_clip": 0.2, "expected_cohort_size": 1.0},
    ],
    ids=lambda strategy: strategy["kind"],
)
def test_both_paths_agree_in_a_federation_with_empty_rounds(strategy: Any) -> None:
    sampler = {"kind": "poisson", "rate": 0.2}
    by_path = {}
    for server in ("messages", "rule"):
        speed = {"server": server, "executor": "one_by_one", "workers": 1}
        scenario = tiny(runs=2, rounds=6, sampler=sampler, strategy=strategy, speed=speed, observe={})
        by_path[server] = simulate(scenario, build(scenario))
    took_part = {part.round for part in by_path["rule"].bank.participation}
    assert took_part < set(range(1, 7))
    for one, other in zip(by_path["messages"].params, by_path["rule"].params, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
