"""Strategies with differential privacy: what one client can move, what noise there is, and the traps of others."""

from __future__ import annotations

import math
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
from strategies.dp_adaptive import DpAdaptive, noise_of_bits, noise_of_updates
from strategies.dp_fedavg import DpFedAvg
from strategies.dp_ftrl import DpFtrl
from strategies.fedavg import FedAvg
from tests.cohorts import CLIENTS, by_messages, by_rule, cohort, drawn, flat, models, one_round, stacked
from tests.tiny import tiny

BOTH = [
    DpFedAvg(clip=0.5, expected_cohort_size=4.0),
    DpAdaptive(initial_clip=0.5, expected_cohort_size=4.0),
    DpFtrl(clip=0.5, expected_cohort_size=4.0),
]
both = pytest.mark.parametrize("strategy", BOTH, ids=lambda strategy: type(strategy).__name__)


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def made(count: int = 5, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return models(rng, 1)[0], cohort(rng, count)


def naive(before: Any, there: Any, clip: float, weights: Any) -> Any:
    """The clipped sum, one client at a time."""
    total = np.zeros(len(flat(before)))
    for model, weight in zip(there.sent, weights, strict=True):
        update = flat(model) - flat(before)
        total += weight * update * min(1.0, clip / np.linalg.norm(update))
    return total


# --- without noise ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "cap"), [(0.5, None), (1e6, None), (3.0, 40), (3.0, 1)])
def test_the_clipped_sum_over_a_fixed_number(clip: float, cap: int | None) -> None:
    before, there = made()
    weights = [1.0 if cap is None else min(size / cap, 1.0) for size in there.sizes]
    after = one_round(DpFedAvg(clip=clip, noise_multiplier=0.0, expected_cohort_size=7.0, cap=cap), there, before)
    np.testing.assert_allclose(
        flat(after) - flat(before), naive(before, there, clip, weights) / 7, rtol=1e-4, atol=1e-6
    )


def test_it_is_the_mean_where_nothing_is_clipped() -> None:
    before, there = made()
    private = one_round(DpFedAvg(clip=1e9, noise_multiplier=0.0, expected_cohort_size=5.0), there, before)
    mean = one_round(FedAvg(weighting="uniform"), there, before)
    np.testing.assert_allclose(flat(private), flat(mean), rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("far", [0.0, 1.0, 1e6, math.inf, math.nan])
def test_one_client_moves_the_sum_by_no_more_than_the_clip(strategy: Any, size: int, far: float) -> None:
    """Whatever it sends and however many rows it says it has: Flower's weights let it move nine times as much."""
    before, there = made(4)
    longest = {name: value + far for name, value in before.items()}
    changed = replace(there, sent=[*there.sent[:3], longest], sizes=[*there.sizes[:3], size])
    gone = there.at([0, 1, 2])
    with_it, without = (one_round(strategy, one, before) for one in (changed, gone))
    # the noise is the same
    gap = float(np.linalg.norm(flat(with_it) - flat(without)))
    assert gap <= 0.5 / 4 * (1 + 1e-4)
    assert gap > 0 or far in (0.0, math.inf) or math.isnan(far)
    other = one_round(strategy, there, before)
    assert float(np.linalg.norm(flat(with_it) - flat(other))) <= 2 * 0.5 / 4 * (1 + 1e-4)


def test_a_share_of_the_cohort_would_not_be_bounded() -> None:
    """So the test above can fail: with weights by size, one client of 1000 rows among small ones moves nearly all."""
    before, there = made(4)
    sizes = [10, 10, 10, 1000]
    longest = {name: value + 0.5 / math.sqrt(15) for name, value in before.items()}
    changed = replace(there, sent=[before, before, before, longest], sizes=sizes)
    moved = flat(one_round(FedAvg(), changed, before)) - flat(before)
    assert np.linalg.norm(moved) > 3 * 0.5 / 4


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


def test_nobody_foresees_the_noise_of_an_app_of_ones_own() -> None:
    before, there = made(3)
    round_number = replace(stacked(1, [there], {name: value[None] for name, value in before.items()}), generators=None)
    strategy = DpFedAvg()
    assert not torch.equal(
        strategy.rule({}, round_number)[0]["layer.bias"], strategy.rule({}, round_number)[0]["layer.bias"]
    )


# --- adaptive clipping ------------------------------------------------------------------------------------------------


def clips(strategy: DpAdaptive, lengths: Any, rounds: int) -> list[float]:
    """The clipping norm after each round in which clients send updates of these lengths."""
    before, there = made(len(lengths))
    unit = flat(models(np.random.default_rng(1), 1)[0])
    unit = unit / np.linalg.norm(unit)
    state, found = strategy.state({name: value[None] for name, value in before.items()}, 9), []
    for number in range(1, rounds + 1):
        model = {name: torch.zeros((1, *value.shape)) for name, value in before.items()}
        round_number = stacked(number, [there], model)
        sent = {}
        for name, part in zip(model, np.split(unit, [12]), strict=True):
            along = torch.tensor(np.outer(lengths, part).reshape(1, len(lengths), *before[name].shape))
            sent[name] = along.float()
        _, state = strategy.rule(state, replace(round_number, sent=sent))
        found.append(float(state["clip"]))
    return found


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_the_clipping_norm_finds_the_median(start: float) -> None:
    """Flower's runs away from it: with the bit of the other sense, too small a norm shrinks."""
    lengths = [0.7, 0.9, 1.0, 1.1, 1.5]
    found = clips(DpAdaptive(initial_clip=start, noise_multiplier=0.0, expected_cohort_size=5.0), lengths, 80)
    assert found[-1] == pytest.approx(1.0, rel=0.2)
    assert (found[0] > start) == (start < 1)


@pytest.mark.parametrize("quantile", [0.2, 0.8])
def test_the_clipping_norm_finds_other_quantiles(quantile: float) -> None:
    strategy = DpAdaptive(initial_clip=1.0, quantile=quantile, noise_multiplier=0.0, expected_cohort_size=9.0)
    found = clips(strategy, np.linspace(1, 9, 9), 100)
    assert found[-1] == pytest.approx(np.quantile(np.arange(1, 10), quantile, method="inverted_cdf"), rel=0.2)


def test_one_step_of_the_clipping_norm_by_hand() -> None:
    """Three of five are at most S = 1, one exactly: exp(-0.2 (0.6 - 0.5))."""
    strategy = DpAdaptive(initial_clip=1.0, noise_multiplier=0.0, expected_cohort_size=5.0)
    assert clips(strategy, [0.5, 0.9, 0.999999, 2.0, 3.0], 1) == [pytest.approx(math.exp(-0.02))]


def test_updates_are_clipped_and_noised_at_the_norm_before_it_moves() -> None:
    """Flower's noise has the norm of the next round, less than the clip where that shrinks."""
    before, there = made(5)
    small = there.sending([{name: value + 1e-3 for name, value in before.items()}] * 5)
    strategy = DpAdaptive(initial_clip=2.0, rate=3.0, bit_noise=1.0, expected_cohort_size=5.0)
    fixed = DpFedAvg(clip=2.0, noise_multiplier=noise_of_updates(strategy), expected_cohort_size=5.0)
    state = strategy.state({name: value[None] for name, value in before.items()}, 9)
    round_number = stacked(1, [small], {name: value[None] for name, value in before.items()})
    after, later = strategy.rule(state, round_number)
    assert float(later["clip"]) < 1.0
    # the bit is drawn first, under an empty name
    generator = drawn(0, 1)
    generator.standard_normal(())
    expected, _ = fixed.rule({}, replace(round_number, generators=lambda: (generator,)))
    assert torch.equal(after["layer.weight"], expected["layer.weight"])


@pytest.mark.parametrize(
    ("z", "bits", "cohort_size"), [(1.0, 0.6, 10.0), (1.0, None, 10.0), (1.0, None, 200.0), (4.0, None, 5.0)]
)
def test_noise_is_split_between_updates_and_bits(z: float, bits: float | None, cohort_size: float) -> None:
    strategy = DpAdaptive(noise_multiplier=z, bit_noise=bits, expected_cohort_size=cohort_size)
    together = noise_of_updates(strategy) ** -2 + (2 * noise_of_bits(strategy)) ** -2
    assert together == pytest.approx(z**-2)
    assert noise_of_updates(strategy) > z


def test_bits_that_need_all_the_noise_are_refused() -> None:
    """Flower's default of cohort / 20 refuses z = 1 for cohorts of up to 10; left out, it is raised instead."""
    with pytest.raises(ValueError, match=r"bit_noise 0.5 leaves nothing.*raise bit_noise above 0.5"):
        DpAdaptive(noise_multiplier=1.0, bit_noise=0.5)
    assert noise_of_bits(DpAdaptive(noise_multiplier=1.0, expected_cohort_size=4.0)) == 2.0
    assert noise_of_bits(DpAdaptive(noise_multiplier=1.0, expected_cohort_size=200.0)) == 10.0


def test_bits_have_noise() -> None:
    lengths = [0.5] * 4
    noisy = clips(DpAdaptive(initial_clip=1.0, expected_cohort_size=4.0), lengths, 1)[0]
    assert noisy != pytest.approx(
        clips(DpAdaptive(initial_clip=1.0, noise_multiplier=0.0, expected_cohort_size=4.0), lengths, 1)[0]
    )


# --- messages ---------------------------------------------------------------------------------------------------------


@both
def test_what_is_no_weight_stays_as_it_was(strategy: Any) -> None:
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
def test_a_round_without_anybody_is_noisy(strategy: Any) -> None:
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
