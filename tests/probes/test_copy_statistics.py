"""Tests of `fedmem/probes/_copy_statistics.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from fedmem.contracts.arrays import FloatArray
from fedmem.probes._copy_statistics import authenticity, data_copying, rank_sum_z


def distances(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.square(first[:, None] - second).sum(axis=2)))


def world(copied: float, seed: int, count: int = 100) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Real rows, held-out rows, and samples of which a share are copies of different real rows."""
    rng = np.random.default_rng(seed)
    real, held_out, samples = rng.standard_normal((3, count, 5))
    copies = round(copied * count)
    samples[:copies] = real[rng.permutation(count)[:copies]]
    return real, held_out, samples


def by_nearest_sample(of_samples: FloatArray, between: FloatArray) -> float:
    """Authenticity with the fault of a published program: distances of real rows by the number of a sample."""
    others = np.where(np.eye(len(between), dtype=bool), np.inf, between).min(axis=1)
    return float((others[of_samples.argmin(axis=0)] < of_samples.min(axis=0)).mean())


def of_world(copied: float, seed: int) -> tuple[float, float, float]:
    """C_T, authenticity, and authenticity with the fault."""
    real, held_out, samples = world(copied, seed)
    of_samples, between = distances(samples, real), distances(real, real)
    copying = data_copying(of_samples.min(axis=1), distances(held_out, real).min(axis=1))
    return copying, authenticity(of_samples, between), by_nearest_sample(of_samples, between)


@pytest.mark.parametrize("ties", [False, True])
def test_z_is_that_of_mann_whitney(ties: bool) -> None:
    rng = np.random.default_rng(0)
    for m, n in ((3, 9), (12, 5), (40, 40)):
        first, second = rng.random(m), rng.random(n) + 0.2
        if ties:
            first, second = first.round(1), second.round(1)
        found = mannwhitneyu(first, second, use_continuity=False, method="asymptotic", alternative="less")

        assert norm.cdf(rank_sum_z(first, second)) == pytest.approx(found.pvalue)
        assert rank_sum_z(first, second) == pytest.approx(-rank_sum_z(second, first))


def test_fresh_samples_have_a_standard_normal_statistic() -> None:
    values = np.array([of_world(0.0, seed)[0] for seed in range(150)])
    assert abs(values.mean()) < 3 / np.sqrt(150)
    assert values.std(ddof=1) == pytest.approx(1, abs=0.2)


def test_copies_are_far_below_and_underfitting_far_above() -> None:
    assert of_world(1.0, 0)[0] < -10
    assert of_world(0.5, 0)[0] < -4
    real, held_out, samples = world(0.0, 1)
    near = distances(held_out, real).min(axis=1)
    assert data_copying(distances(3 * samples, real).min(axis=1), near) > 5


def test_cells_are_weighted_by_held_out_rows() -> None:
    rng = np.random.default_rng(0)
    generated, held_out = rng.random(30), rng.random(20)
    cell, other = np.arange(30) % 3, np.array([0] * 5 + [1] * 15)
    z = [rank_sum_z(generated[cell == c], held_out[other == c]) for c in (0, 1)]
    assert data_copying(generated, held_out, cell, other) == pytest.approx(0.25 * z[0] + 0.75 * z[1])
    cell = np.array([0] * 3 + [1] * 27)
    z = [rank_sum_z(generated[cell == c], held_out[other == c]) for c in (0, 1)]
    assert data_copying(generated, held_out, cell, other, 0.1) == pytest.approx(z[1]), "0.1 is not above 0.1"
    assert np.isnan(data_copying(generated, held_out, cell + 2, other)), "no cell has both"


def test_authenticity_is_that_of_a_loop() -> None:
    for copied, expected in ((0.0, 0.52), (0.5, 0.25), (1.0, 0.0)):
        real, _, samples = world(copied, 3)
        count = 0
        for sample in samples:
            away = [float(np.linalg.norm(sample - row)) for row in real]
            nearest = int(np.argmin(away))
            rest = [float(np.linalg.norm(real[nearest] - row)) for k, row in enumerate(real) if k != nearest]
            count += away[nearest] > min(rest)
        found = authenticity(distances(samples, real), distances(real, real))
        assert found == pytest.approx(count / len(samples))
        assert found == pytest.approx(expected, abs=0.12)


def test_the_fault_of_a_published_program_gives_other_values() -> None:
    """Half of the samples copy, each another row: real rows that nothing is near to decide there, and not samples."""
    found = np.array([of_world(0.5, seed)[1:] for seed in range(20)])
    assert abs(found.mean(axis=0)[0] - found.mean(axis=0)[1]) > 0.01
    real = np.array([[0.0], [1.0], [10.0], [11.0]])
    samples = np.array([[0.1], [0.2], [0.3], [14.0]])
    of_samples, between = distances(samples, real), distances(real, real)
    assert authenticity(of_samples, between) == 0.25, "the last alone is farther than the nearest pair"
    assert by_nearest_sample(of_samples, between) != 0.25


def test_duplicates_ties_and_small_sets_are_decided() -> None:
    real = np.array([[0.0], [0.0], [5.0]])
    assert authenticity(distances(np.array([[0.0]]), real), distances(real, real)) == 0, "a copy of a duplicate"
    near = distances(np.array([[0.1], [4.9]]), real)
    assert authenticity(near, distances(real, real)) == 0.5, "nothing but a copy is nearer than a duplicate"
    pair = np.array([[0.0], [1.0]])
    assert authenticity(distances(np.array([[-1.0]]), pair), distances(pair, pair)) == 0, "equally far is no farther"
    for few in (np.zeros((0, 1)), np.zeros((1, 1))):
        assert np.isnan(authenticity(distances(np.ones((2, 1)), few), distances(few, few)))
    assert np.isnan(authenticity(np.zeros((0, 2)), distances(pair, pair)))
    assert np.isnan(authenticity(np.full((1, 2), np.nan), distances(pair, pair)))
    assert rank_sum_z(np.ones(3), np.ones(4)) == 0, "all tied"
    assert np.isnan(rank_sum_z(np.zeros(0), np.ones(2)))
    assert np.isnan(rank_sum_z(np.array([np.nan]), np.ones(2)))
    assert rank_sum_z(np.array([0.0]), np.array([1.0])) == pytest.approx(-1.0)
