"""Influence, references and clients, with many repetitions: each accepts the truth and rejects a nearby mistake."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import rankdata, skewnorm

from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.rmia import Rmia
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.contracts.estimator import View
from fedmem.estimation.roc import auc
from fedmem.estimation.statistics import benjamini_hochberg, mean, means_by_coin, rank_sum_exact
from fedmem.estimators._skew_normal import fit, log_cdf, positions
from fedmem.estimators.client_influence import ClientInfluence
from fedmem.estimators.cross_influence import CrossInfluence, _by_ranks
from fedmem.estimators.exposure_skewnormal import ExposureSkewnormal
from tests.banks import coins, make_view, signals
from tests.estimators.exposure_skewnormal_helpers import canaries
from tests.labelling import labels
from tests.narrowing import present

pytestmark = pytest.mark.statistical


def area(scores: FloatArray, is_in: BoolArray) -> float:
    return auc(scores, is_in).value


# RMIA


def attacked(seed: int, runs: int, effect: float, m: int = 100, n: int = 300) -> tuple[Signals, BoolArray]:
    """Examples and population of the same spread; members are `effect` higher."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    margin = 2 * rng.normal(size=m) + rng.normal(size=(runs, m)) + effect * is_in
    population = np.logaddexp(0, -2 * rng.normal(size=n) - rng.normal(size=(runs, n)))
    return signals(margin, is_in, population), is_in


@pytest.mark.parametrize(
    ("mode", "runs"), [("online", 4), ("online", 8), ("online", 32), ("offline", 8), ("offline", 32)]
)
def test_rmia_has_auc_half_only_without_an_effect(mode: Literal["online", "offline"], runs: int) -> None:
    def areas(effect: float) -> FloatArray:
        cases = [attacked(seed, runs, effect) for seed in range(150)]
        return np.array([area(Rmia(mode=mode).scores(seen), is_in) for seen, is_in in cases])

    none, some = areas(0.0), areas(0.15)
    spread = none.std() / math.sqrt(len(none))
    # Offline a target that is out has one reference less, which shows a little where there are few.
    assert abs(none.mean() - 0.5) < 3 * spread + (0.005 if mode == "offline" else 0)
    assert some.mean() - none.mean() > 5 * spread


def test_rmia_finds_members_and_its_mistakes_find_fewer() -> None:
    areas: dict[str, list[float]] = {}
    for seed in range(30):
        seen, is_in = attacked(seed, 8, 1.5)
        p, z = np.exp(-seen.loss), np.exp(-present(seen.population)[0])
        for name, scores in (
            ("online", Rmia().scores(seen)),
            ("offline", Rmia(mode="offline").scores(seen)),
            ("threshold", LossThreshold().scores(seen)),
            ("no reference", (p[:, :, None] >= z[:, None]).mean(2)),
            ("upside down", Rmia().scores(signals(-seen.margin, is_in, present(seen.population)[0]))),
        ):
            areas.setdefault(name, []).append(area(scores, is_in))
    mean = {name: np.mean(values) for name, values in areas.items()}
    assert mean["online"] > mean["offline"] > mean["threshold"] + 0.05
    assert mean["online"] > mean["no reference"] + 0.05
    assert mean["upside down"] < 0.5


# Cross-influence


def unrelated(
    seed: int, runs: int = 24, m: int = 8, n: int = 40, draws: int = 20
) -> tuple[View, BoolArray, FloatArray]:
    """Test margins that no coin moves, with a share of easy and of hard examples."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, m, rng)
    test = rng.normal(size=(runs, n)) + 2 * rng.normal(size=n)
    return make_view(np.zeros((runs, m)), is_in, test=test, round_number=None, draws=draws), is_in, test


def test_influence_pairs_are_found_at_their_level_only() -> None:
    found = {"": 0, "probability": 0, "normal": 0}
    helped = {"cross_help_p": 0, "cross_harm_p": 0, "cross_strongest_p": 0}
    repetitions = 200
    for seed in range(repetitions):
        view, is_in, test = unrelated(seed)
        rows = {
            (r.metric, r.labels.text("statistic")): r.value
            for _, r in CrossInfluence().tests(view)
            if r.subject == "random_pattern"
        }
        for setting in ("", "probability"):
            found[setting] += rows["cross_pairs_helped", setting] + rows["cross_pairs_harmed", setting] > 0
        for name in helped:
            helped[name] += rows[name, "probability"] <= 0.05
        hit = (test > 0).astype(float)
        ins, outs = (np.stack([hit[c].mean(0) for c in side.T]) for side in (is_in, ~is_in))
        error = np.sqrt(ins * (1 - ins) / 12 + outs * (1 - outs) / 12)
        z = np.abs(ins - outs) / np.where(error > 0, error, np.inf)
        found["normal"] += bool(benjamini_hochberg((2 * ndtr(-z)).ravel(), 0.05).any())
    # Under a global null any discovery is wrong, so the rate bounds the share of banks that have one.
    assert found[""] / repetitions <= 0.05
    assert found["probability"] / repetitions <= 0.09
    assert found["normal"] / repetitions > 0.15
    for name, count in helped.items():
        assert 0.01 <= count / repetitions <= 0.1, name


def test_planted_pairs_are_found_and_few_others() -> None:
    right = wrong = missed = 0.0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        is_in = coins(32, 10, rng)
        test = rng.normal(size=(32, 40))
        for j in range(10):  # each helps the two test examples of its own number
            test[:, 2 * j : 2 * j + 2] += 2.5 * is_in[:, j : j + 1]
        view = make_view(np.zeros((32, 10)), is_in, test=test, round_number=None, draws=5)
        rows = {
            (r.metric, r.labels.text("statistic")): r.value
            for _, r in CrossInfluence().tests(view)
            if r.subject == "random_pattern"
        }
        found, harmed = (rows[f"cross_pairs_{side}", "probability"] for side in ("helped", "harmed"))
        right, wrong, missed = right + min(found, 20), wrong + max(found - 20, 0) + harmed, missed + max(20 - found, 0)
        assert rows["cross_help_p", "probability"] < 0.02
    assert right / 1200 > 0.9
    assert wrong / (right + wrong) < 0.08


def test_p_of_tied_probabilities_holds_its_level() -> None:
    """Runs whose probabilities take few values, as where a loss has reached 0 in some of them."""
    rng = np.random.default_rng(5)
    is_in = coins(12, 4000, rng)
    values = rng.integers(3, size=(12, 25)).astype(float)
    p, ranks = _by_ranks(is_in, values)[0], rankdata(values, axis=0)
    u = is_in.T @ ranks - 21
    rounded = rank_sum_exact(12, 6)[np.where(u > 18, np.floor(u), np.ceil(u)).astype(int)]
    levels = np.unique(np.round(np.concatenate([p.ravel(), rounded.ravel()]), 12))
    error = 3 * np.sqrt(levels / 4000)[:, None]
    shares = [np.stack([(found <= level + 1e-9).mean(0) for level in levels]) for found in (p, rounded)]
    assert (shares[0] <= levels[:, None] + error).all()
    assert (shares[1] > levels[:, None] + error).any()


# Exposure by extrapolation


@pytest.mark.parametrize("shape", [-4.0, 0.0, 3.0])
def test_skew_normal_extrapolation_is_right_and_normal_is_not(shape: float) -> None:
    rng = np.random.default_rng(0)
    count, samples = 1000, 400
    ordered = np.sort(6 + skewnorm.rvs(shape, size=(samples, count), random_state=rng), axis=1)
    law = fit(ordered[:, positions(count)], count)
    score = 6 + skewnorm.ppf(2.0**-20, shape)
    bits = -log_cdf(np.full(samples, score), law) / math.log(2)
    assert np.median(bits) == pytest.approx(20, abs=0.5)
    assert abs(bits.mean() - 20) < 1.0
    if shape:
        z = (score - ordered.mean(1)) / ordered.std(1)
        assert abs(np.median(-np.log2(ndtr(z))) - 20) > 3


def test_null_of_extrapolated_exposure_and_the_fits_that_count() -> None:
    rng = np.random.default_rng(1)
    runs, m, count = 40, 50, 1000
    is_in = coins(runs, m, rng)
    references = np.sort(9 + skewnorm.rvs(2.0, size=(runs, count), random_state=rng), axis=1)[:, positions(count)]
    loss = 9 + skewnorm.rvs(2.0, size=(runs, m), random_state=rng)
    view = canaries(loss, is_in, references, count)
    (e,) = ExposureSkewnormal().estimate(view)
    per_pair = math.log2(math.e) / math.sqrt(runs * m / 2)
    assert abs(e.value - e.null) < 3 * per_pair
    assert abs(e.value * math.log(2) - e.null) > 5 * per_pair  # nats taken for bits
    rows = {r.metric: r.value for _, r in ExposureSkewnormal().tests(view)}
    assert rows["skewnormal_fitted"] > 0.95
    wrong = np.sort(9 + rng.standard_t(2, size=(runs, count)).clip(-8, 40), axis=1)[:, positions(count)]
    rows = {r.metric: r.value for _, r in ExposureSkewnormal().tests(canaries(loss, is_in, wrong, count))}
    assert rows["skewnormal_fitted"] < 0.05


# Clients


def test_welch_intervals_of_client_influence_cover() -> None:
    clients, runs, covered, plain, wrong_sign = 6, 8, 0, 0, 0
    truth = np.array([0.8, 0.4, 0.0, 0.0, -0.3, -0.6])
    for seed in range(250):
        rng = np.random.default_rng(seed)
        there = coins(runs, clients, rng)
        loss = 5 - there @ truth + 0.3 * rng.normal(size=runs)
        test = -np.log(np.expm1(np.repeat(loss[:, None], 4, axis=1)))
        view = make_view(
            np.zeros((runs, 1)), coins(runs, 1, rng), test=test, round_number=None, client_in=there, draws=5
        )
        rows = {r.subject: r for _, r in ClientInfluence().tests(view) if r.labels == labels("statistic=loss")}
        for k in range(clients):
            row = rows[f"client {k}"]
            covered += row.low <= -truth[k] <= row.high
            wrong_sign += row.low <= truth[k] <= row.high
            sides = [loss[c] for c in (there[:, k], ~there[:, k])]
            half = 1.96 * math.sqrt(sum(side.var() / 4 for side in sides))
            plain += abs(row.value + truth[k]) <= half
    assert 0.92 <= covered / 1500 <= 0.985
    assert plain / 1500 < 0.90
    assert wrong_sign / 1500 < 0.85


def test_intervals_of_the_mean_over_clients_cover_zero() -> None:
    """What a run adds, it adds to all clients, which a bootstrap of runs takes for less than it is."""
    missed = before = shifted = 0
    cases = [(runs, clients, seed) for runs, clients in ((8, 6), (16, 6), (16, 12)) for seed in range(400)]
    for case in cases:
        runs, clients, _ = case
        rng = np.random.default_rng(case)
        there = coins(runs, clients, rng)
        loss = 5 + 0.3 * rng.normal(size=runs)
        test = -np.log(np.expm1(np.repeat(loss[:, None], 4, axis=1)))
        view = make_view(
            np.zeros((runs, 1)), coins(runs, 1, rng), test=test, round_number=None, client_in=there, draws=200
        )
        (row,) = [
            r for _, r in ClientInfluence().tests(view) if (r.subject, r.labels) == ("", labels("statistic=loss"))
        ]
        missed += not row.low <= 0 <= row.high
        shifted += not row.low <= 0.15 <= row.high
        drawn = np.random.default_rng(7).multinomial(runs, np.full(runs, 1 / runs), size=200).astype(float)
        inside, outside = means_by_coin(np.repeat(loss[:, None], clients, axis=1), there, drawn)
        low, high = np.nanquantile(mean(inside - outside, axis=1), [0.025, 0.975])
        before += not low <= 0 <= high
    assert 0.005 <= missed / len(cases) <= 0.05
    assert before / len(cases) > 0.07
    assert shifted / len(cases) > 0.3  # a wrong centre shows
