"""Tests of `fedmem/estimation/cells.py`."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import CoinPermutations, Influence
from fedmem.estimation.cells import (
    contrast,
    influence_of,
    interaction,
    p_of_interaction,
    spread,
    without_negative_covariance,
)
from fedmem.estimation.randomisation import two_sided
from fedmem.estimation.two_way import interval, of_difference, variance
from tests.banks import coins


def redeal(is_in: BoolArray, count: int, rng: np.random.Generator) -> CoinPermutations:
    again = rng.permuted(np.broadcast_to(is_in, (count, *is_in.shape)), axis=1)
    return CoinPermutations(coins=np.concatenate([is_in[None], again]), shuffles=np.zeros((0, len(is_in)), np.int64))


def by_definition(values: FloatArray, t: BoolArray, p: BoolArray) -> FloatArray:
    """The interaction, with loops."""
    cells = {(a, b): [values[(t[:, j] == a) & (p[:, j] == b), j].mean() for j in range(values.shape[1])]
             for a, b in product((False, True), repeat=2)}  # fmt: skip
    v = {key: np.array(means) for key, means in cells.items()}
    return np.asarray((v[True, True] - v[False, True]) - (v[True, False] - v[False, False]))


def test_an_interaction_is_free_of_main_effects() -> None:
    rng = np.random.default_rng(0)
    t, p, values = coins(16, 5, rng), coins(16, 5, rng), rng.normal(size=(16, 5))
    found = contrast(values, interaction(t, p))
    np.testing.assert_allclose(found, by_definition(values, t, p))
    np.testing.assert_allclose(contrast(values + 3 * t - 7 * p + rng.normal(size=5), interaction(t, p)), found)
    np.testing.assert_allclose(contrast(values + 2 * (t & p), interaction(t, p)), found + 2)
    # with balanced coins, cells of one sign are of one size
    np.testing.assert_array_equal((t & p).sum(0), (~t & ~p).sum(0))


def test_an_empty_cell_and_missing_values() -> None:
    t = np.array([[True], [True], [False], [False]])
    p = np.array([[True], [True], [False], [False]])
    assert np.isnan(contrast(np.ones((4, 1)), interaction(t, p))).all()
    p = np.array([[True], [False], [True], [False]])
    assert np.isnan(contrast(np.array([[1.0], [0.0], [0.0], [np.nan]]), interaction(t, p))).all()
    assert contrast(np.array([[1.0], [0.0], [0.0], [0.0]]), interaction(t, p)).tolist() == [1.0]


def test_contributions_of_two_cells_are_those_of_a_difference() -> None:
    rng = np.random.default_rng(1)
    is_in, values = coins(12, 9, rng), rng.normal(size=(12, 9))
    values[0, 0] = np.nan
    found = influence_of(values, ((1.0, is_in), (-1.0, ~is_in)))
    expected = of_difference(values, is_in)
    np.testing.assert_allclose(found.cells, expected.cells, atol=1e-12)
    np.testing.assert_allclose(found.examples, expected.examples, atol=1e-12)


def test_values_without_noise_have_no_interval_and_p_is_one() -> None:
    rng = np.random.default_rng(2)
    t, p = coins(16, 8, rng), coins(16, 8, rng)
    values = 1.0 * t + 0.5 * p
    parts = influence_of(values, interaction(t, p))
    assert np.isnan(interval(0.0, parts, 8, (-2.0, 2.0))).all()
    assert p_of_interaction(values, t, redeal(p, 49, rng)) == 1.0
    assert np.isnan(p_of_interaction(values[:1], t[:1], redeal(p[:1], 49, rng))), "one run"
    assert np.isnan(p_of_interaction(values[:, :0], t[:, :0], redeal(p[:, :0], 9, rng))), "no example"


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "shared by a run", "yes or no", "with poison alone"])
def test_level_and_coverage_hold_under_strong_main_effects(noise: str) -> None:
    rng = np.random.default_rng(3)
    low_p, covered, count = 0, 0, 300
    for _ in range(count):
        t, p = coins(16, 10, rng), coins(16, 10, rng)
        values = {
            "normal": rng.normal(size=t.shape) + 9 * t * rng.normal(size=10) - 8 * p,
            "shared by a run": rng.normal(size=t.shape) + 2 * rng.normal(size=(16, 1)) + 5 * t - 5 * p,
            "yes or no": (rng.random(t.shape) < 0.1 + 0.4 * t + 0.4 * ~p).astype(float),
            "with poison alone": np.where(p, rng.random(t.shape) < 0.5, 1.0),
        }[noise]
        cells = interaction(t, p)
        usable = ~np.isnan(contrast(values, cells))
        t, p, values = t[:, usable], p[:, usable], values[:, usable]
        cells = interaction(t, p)
        low, high = interval(float(contrast(values, cells).mean()), influence_of(values, cells), int(usable.sum()))
        covered += low <= 0 <= high
        low_p += p_of_interaction(values, t, redeal(p, 59, rng)) <= 0.05
    assert low_p / count <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    assert covered / count >= 0.95 - 4 * np.sqrt(0.05 * 0.95 / count)


def test_an_interaction_is_found() -> None:
    rng = np.random.default_rng(4)
    t, p = coins(16, 10, rng), coins(16, 10, rng)
    values = rng.normal(size=t.shape) + 9 * t - 9 * p + 3 * (t & p)
    cells = interaction(t, p)
    low, high = interval(float(contrast(values, cells).mean()), influence_of(values, cells), 10)
    assert 0 < low < 3 < high
    assert p_of_interaction(values, t, redeal(p, 99, rng)) <= 0.02


def test_p_is_that_of_residuals_that_are_dealt_again() -> None:
    """By loops: additive effects are taken off, what is left is widened, and every deal has its interaction."""
    rng, differs = np.random.default_rng(5), []
    for _ in range(6):
        t, p, values = coins(8, 4, rng), coins(8, 4, rng), rng.normal(size=(8, 4))
        values[rng.integers(8), 0] = np.nan
        deals = redeal(p, 199, rng)
        residuals = np.full(values.shape, np.nan)
        for j in range(4):
            there = np.flatnonzero(~np.isnan(values[:, j]))
            design = np.stack([np.ones(len(there)), t[there, j], p[there, j]], axis=1)
            left = values[there, j] - design @ np.linalg.pinv(design) @ values[there, j]
            residuals[there, j] = left * np.sqrt((len(there) - 1) / (len(there) - 3))
        with np.errstate(invalid="ignore"):
            again = np.array([np.nanmean(contrast(residuals, interaction(t, deal))) for deal in deals.coins[1:]])
        value = contrast(values, interaction(t, p)).mean()
        expected, narrow = (two_sided(np.array([value, *(scale * again)])) for scale in (1.0, np.sqrt(5 / 7)))
        assert p_of_interaction(values, t, deals) == pytest.approx(expected)
        differs.append(expected != narrow)
    assert sum(differs) >= 3


def test_a_negative_covariance_does_not_lower_a_variance() -> None:
    """Examples that differ in opposite ways in each run have the variance of examples, and others that of both."""
    rng = np.random.default_rng(6)
    examples, noise = spread(rng.normal(size=6)), rng.normal(size=(8, 6)) / 50
    together = Influence(examples=examples, cells=noise + rng.normal(size=(8, 1)) / 50)
    apart = Influence(examples=examples, cells=noise - noise.mean(axis=1, keepdims=True))
    assert without_negative_covariance(together) is together
    assert variance(together) > np.square(examples).sum() > variance(apart)
    assert variance(without_negative_covariance(apart)) == pytest.approx(np.square(examples).sum())
    alike = Influence(examples=np.zeros(6), cells=apart.cells)
    assert without_negative_covariance(alike) is alike, "nothing else would be left"
