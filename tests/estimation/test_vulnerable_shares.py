"""Tests of `fedmem/estimation/vulnerable_shares.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.attack_success import HeldOutScores
from fedmem.estimation.rank_agreement import Halves
from fedmem.estimation.vulnerable_shares import Excesses, Thresholds, directions, excess_of, excesses, share
from tests.banks import coins, signals

RUNS = 16
GROUP = 20
"""Examples of a group."""


def planted(*groups: tuple[float, float], seed: int) -> Excesses:
    """Groups of examples by base margin and effect of training on the example."""
    rng = np.random.default_rng(seed)
    base, effect = (np.repeat(column, GROUP) for column in zip(*groups, strict=True))
    is_in = coins(RUNS, len(base), rng)
    margin = base + effect * is_in + rng.normal(size=is_in.shape)
    scorer = HeldOutScores(attack=Lira(), signals=[signals(margin, is_in)])
    first = Halves.draw(is_in, 2, rng).first
    within = np.stack([[scorer.success_within(np.flatnonzero(half), rng) for half in side] for side in (first, ~first)])
    return excesses(
        directions(scorer, first), within, 1 / (1 + np.exp(-margin)), Thresholds(vulnerable=0.75, memorised=0.25), rng
    )


def sums(found: list[Excesses], name: str) -> FloatArray:
    """Of a count over examples, one a bank, as a share of the examples."""
    return np.array([np.nanmean(getattr(one, name)) for one in found])


NAMES = (
    "vulnerable",
    "memorised",
    "vulnerable_only",
    "memorised_only",
    "memorised_missed",
    "vulnerable_missed",
)


def test_without_an_effect_all_counts_are_0_in_expectation() -> None:
    """With eight runs in a half, one example in five reaches the AUC by chance."""
    found = [planted((-1.0, 0.0), (1.0, 0.0), seed=seed) for seed in range(16)]
    for name in NAMES:
        values = sums(found, name)
        assert abs(values.mean()) < 3 * values.std() / 4, name
        assert abs(values.mean()) < 0.02, name


def test_shares_are_those_of_the_known_truth() -> None:
    """A third is memorised and vulnerable, a third vulnerable alone, and a third neither; with 16 runs."""
    found = [planted((-2.0, 5.0), (-8.0, 5.0), (-2.0, 0.0), seed=seed) for seed in range(8)]
    assert sums(found, "vulnerable").mean() == pytest.approx(2 / 3, abs=0.03)
    assert sums(found, "memorised").mean() == pytest.approx(1 / 3, abs=0.03)
    only = sums(found, "vulnerable_only") / sums(found, "vulnerable")
    assert only.mean() == pytest.approx(1 / 2, abs=0.03)
    assert sums(found, "memorised_only").mean() == pytest.approx(0.0, abs=0.02)
    naive = np.mean([(one.vulnerable > 0).mean() for one in found])
    assert naive > 0.75, "counted without the correction, chance adds examples"


def test_a_share_of_nothing_is_undefined() -> None:
    found = planted((-1.0, 0.0), (1.0, 0.0), seed=1)
    weights = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), size=50).T.astype(np.float64)
    assert np.isnan(share(found.vulnerable_only, found.vulnerable, weights).value)
    whole = share(found.vulnerable, None, weights)
    assert whole.low <= whole.value <= whole.high
    assert whole.low < 0 < whole.high


def test_draws_of_two_shares_are_paired() -> None:
    rng = np.random.default_rng(0)
    part, whole = rng.random(30), np.ones(30)
    weights = rng.multinomial(30, np.full(30, 1 / 30), size=50).T.astype(np.float64)
    one, other = share(part, whole, weights), share(part - 0.1, whole, weights)
    gap = excess_of(one, other)
    assert gap.value == pytest.approx(0.1)
    assert np.ptp(gap.of_draws) < 1e-12
    assert one.count == 30
    assert one.low < part.mean() < one.high
    part[0] = np.nan
    assert share(part, whole, weights).count == 29
