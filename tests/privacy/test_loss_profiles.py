"""Privacy profiles against explicit pairs of neighbours: none exceeds them, and the extreme pair attains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.privacy.loss_profiles import Pair as Neighbours
from fedmem.privacy.loss_profiles import Profile, composed_epsilon, composed_profile, profile
from tests.neighbours import Pair, divergence, epsilon_at_least, opposed, turned

EPSILONS = np.array([0.0, 0.01, 0.1, 0.5, 1.0, 2.0, 4.0])


def disc(rng: np.random.Generator, count: int) -> FloatArray:
    """Contributions of length at most 1 in a plane, half of them as long as that."""
    length = np.where(rng.random(count) < 0.5, 1.0, np.sqrt(rng.random(count)))
    angle = rng.uniform(0, 2 * np.pi, count)
    out: FloatArray = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return out


def plane(noise: float) -> tuple[FloatArray, float]:
    """Points of a grid, and the area of each; sums over it are right to 3 in a thousand."""
    line = np.linspace(-2.5 - 6 * noise, 2.5 + 6 * noise, 201)
    return np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1), (line[1] - line[0]) ** 2


def density(points: FloatArray, means: Sequence[FloatArray], weights: Sequence[float], noise: float) -> FloatArray:
    found = np.zeros(points.shape[:2])
    for mean, weight in zip(means, weights, strict=True):
        found += weight * np.exp(-np.square(points - mean).sum(-1) / (2 * noise**2))
    return found / (2 * np.pi * noise**2)


def excess(first: FloatArray, second: FloatArray, epsilon: float, area: float) -> float:
    return float(np.maximum(first - math.exp(epsilon) * second, 0).sum() * area)


def cohort(
    rng: np.random.Generator, rate: float
) -> dict[str, tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray], list[float]]]:
    """(D, D') for one drawn cohort: with whom the unit changes places, what it sends, and what it sends in D'."""
    other, unit, instead = disc(rng, 3)
    zero = np.zeros(2)
    weights = [1 - rate, rate]
    return {
        "poisson": ((zero, unit), (zero, zero), weights),
        "poisson_replace": ((zero, unit), (zero, instead), weights),
        "fixed_zero_out": ((other, unit), (other, zero), weights),
        "fixed_replace": ((other, unit), (other, instead), weights),
    }


@pytest.mark.parametrize("pair", ["poisson", "poisson_replace", "fixed_zero_out", "fixed_replace"])
def test_no_neighbours_in_a_plane_exceed_the_profile(
    pair: Neighbours,
) -> None:
    rng = np.random.default_rng(3)
    for noise, rate in [(0.8, 0.3), (2.0, 0.05), (1.0, 0.9)]:
        one, (points, area) = profile(pair, noise, rate), plane(noise)
        forward, backward = one.forward(EPSILONS), one.backward(EPSILONS)
        for _ in range(15):
            with_it, without, weights = cohort(rng, rate)[pair]
            first, second = (density(points, means, weights, noise) for means in (with_it, without))
            found = [excess(first, second, epsilon, area) for epsilon in EPSILONS]
            turned_round = [excess(second, first, epsilon, area) for epsilon in EPSILONS]
            assert (found <= 1.003 * forward).all()
            assert (turned_round <= 1.003 * backward + 1e-9).all()


def test_no_drawn_cohorts_exceed_the_profile() -> None:
    """Every subset of six units, three at a time, with contributions of any kind, and with the worst."""
    rng, noise = np.random.default_rng(4), 1.0
    subsets = list(combinations(range(6), 3))
    for sent in [*rng.uniform(-1, 1, (8, 6)), np.array([1.0, -1, -1, -1, -1, -1]), np.array([1.0, 1, 1, -1, -1, -1])]:
        replaced = profile("fixed_replace", noise, 0.5)
        for instead, one in [(0.0, profile("fixed_zero_out", noise, 0.5)), (-sent[0], replaced), (1.0, replaced)]:
            other = np.array([instead, *sent[1:]])
            first, second = (
                [(1 / len(subsets), float(all_[list(s)].sum())) for s in subsets] for all_ in (sent, other)
            )
            both = first, second
            assert (divergence(both, noise, EPSILONS, 2000) <= one.forward(EPSILONS) + 1e-9).all()
            assert (divergence(turned(both), noise, EPSILONS, 2000) <= one.backward(EPSILONS) + 1e-9).all()


def extreme(pair: str, rate: float) -> tuple[Pair, Pair]:
    """The pairs by name, forward and backward."""
    absent, there = 1 - rate, rate
    sampled = ((absent, 0.0), (there, 1.0)), ((1.0, 0.0),)
    replaced = ((absent, 0.0), (there, 1.0)), ((absent, 0.0), (there, -1.0))
    wide = ((absent, -1.0), (there, 1.0)), ((1.0, -1.0),)
    return {
        "poisson": (sampled, turned(sampled)),
        "poisson_replace": (replaced, turned(replaced)),
        "fixed_zero_out": (opposed(rate), sampled),
        "fixed_replace": (wide, wide),
    }[pair]


@pytest.mark.parametrize("pair", ["poisson", "poisson_replace", "fixed_zero_out", "fixed_replace"])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (0.5, 0.6), (3.0, 1.0), (2.0, 0.001)])
def test_the_extreme_pair_attains_the_profile(pair: Neighbours, noise: float, rate: float) -> None:
    one = profile(pair, noise, rate)
    for function, neighbours in zip((one.forward, one.backward), extreme(pair, rate), strict=True):
        assert divergence(neighbours, noise, EPSILONS) == pytest.approx(function(EPSILONS), rel=1e-5, abs=1e-12)


def test_profiles_stay_sound_at_the_edges_of_floating_point() -> None:
    far = np.array([0.0, 1.0, 50.0, 700.0, 1e5])
    with np.errstate(all="raise", under="ignore"):
        for pair in ("poisson", "poisson_replace", "fixed_zero_out", "fixed_replace"):
            for noise in (1e-3, 1.0, 1e6):
                for rate in (1e-6, 0.5, 1.0):
                    one = profile(pair, noise, rate)
                    for found in (one.forward(far), one.backward(far)):
                        assert ((found >= 0) & (found <= 1)).all()
                        assert (np.diff(found) <= 1e-15).all()


def test_rounds_of_different_neighbours_stay_below_composition() -> None:
    """Who the others are may change from round to round, and with what was released before."""
    noise, rate, delta = 1.0, 0.1, 1e-5
    bound = composed_epsilon(profile("fixed_zero_out", noise, rate), 12, delta, 64.0)
    alike = ((1 - rate, 1.0), (rate, 1.0)), ((1 - rate, 1.0), (rate, 0.0))
    halves = (
        ((0.45, -1.0), (0.45, 1.0), (0.1, 1.0)),
        ((0.45, -1.0), (0.45, 1.0), (0.1, 0.0)),
    )
    weak = ((1 - rate, -0.5), (rate, 0.7)), ((1 - rate, -0.5), (rate, 0.0))
    mixes = [[(opposed(rate), noise, 12)], [(opposed(rate), noise, 6), (alike, noise, 6)]]
    mixes += [[(opposed(rate), noise, 4), (halves, noise, 4), (weak, noise, 4)], [(alike, noise, 12)]]
    found = [epsilon_at_least(mix, delta, 1e-4) for mix in mixes]
    found += [epsilon_at_least([(turned(p), z, n) for p, z, n in mix], delta, 1e-4) for mix in mixes]
    assert max(found) == found[0]
    assert 0.95 * bound < found[0] <= bound


@pytest.mark.parametrize(("noise", "rate", "count"), [(1.0, 0.1, 50), (0.8, 0.05, 200), (3.0, 0.5, 10)])
def test_poisson_profiles_compose_like_those_of_the_library(noise: float, rate: float, count: int) -> None:
    from dp_accounting import NeighboringRelation as Relation
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    pairs: list[tuple[Neighbours, Any]] = [
        ("poisson", Relation.ADD_OR_REMOVE_ONE),
        ("poisson_replace", Relation.REPLACE_ONE),
    ]
    for pair, relation in pairs:
        library = from_gaussian_mechanism(
            noise, value_discretization_interval=1e-3, sampling_prob=rate, neighboring_relation=relation
        )
        theirs = library.self_compose(count).get_epsilon_for_delta(1e-5)
        assert composed_epsilon(profile(pair, noise, rate), count, 1e-5, 64.0) == pytest.approx(theirs, rel=2e-3)


def test_a_coarse_grid_gives_a_bound_too() -> None:
    one = profile("fixed_zero_out", 1.0, 0.1)
    fine = composed_epsilon(one, 50, 1e-5, 64.0)
    coarse = composed_epsilon(one, 50, 1e-5, 0.0)
    assert fine < coarse < 1.05 * fine
    assert composed_epsilon(one, 50, 1e-30, 64.0) == math.inf
    assert composed_epsilon(one, 1, 0.9, 64.0) == 0


@pytest.mark.parametrize("pair", ["poisson", "fixed_zero_out"])
def test_either_neighbour_may_come_first(
    pair: Neighbours,
) -> None:
    """Which of two neighbours is called D is nobody's choice, so the bound is that of the worse order."""
    one = profile(pair, 1.0, 0.3)
    other = Profile(forward=one.backward, backward=one.forward)
    found, exchanged = (composed_epsilon(each, 10, 1e-5, 64.0) for each in (one, other))
    assert found == pytest.approx(exchanged, rel=1e-6)


def test_composed_profiles_are_bounds_near_the_exact_ones() -> None:
    from scipy.stats import norm

    mu = math.sqrt(9) / 2
    exact = norm.cdf(mu / 2 - EPSILONS / mu) - np.exp(EPSILONS) * norm.cdf(-mu / 2 - EPSILONS / mu)
    whole = composed_profile(profile("poisson", 2.0, 1.0), 9)
    for deltas in (whole.forward(EPSILONS), whole.backward(EPSILONS)):
        assert (deltas >= exact - 1e-12).all()
        assert np.allclose(deltas, exact, atol=2e-3)


def test_composed_profile_has_the_epsilon_of_both_directions() -> None:
    one = profile("poisson", 0.8, 0.2)
    epsilon = composed_epsilon(one, 30, 1e-5, 64.0)
    whole = composed_profile(one, 30)
    worst = max(float(way(np.array([epsilon]))[0]) for way in (whole.forward, whole.backward))
    assert 1e-5 * 0.99 <= worst < 1.5e-5, "the grid is coarser, so the bound is larger"
    assert composed_profile(profile("poisson", 1e-4, 0.2), 2).forward(EPSILONS).tolist() == [1.0] * len(EPSILONS)
