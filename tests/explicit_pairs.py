"""Lower bounds of epsilon from explicit pairs of neighbouring data sets, computed without any accountant.

A release of a subsampled sum along one direction is a mixture of normal distributions. The privacy loss of one release
is put on a grid and rounded down, and composed by Fourier transform. Hence every value here is at most the true epsilon
of the pair, up to rounding of floating-point numbers, and no valid bound may lie below it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Mixture = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Means, in units of the clip, and their probabilities."""

STEP = 2e-4
"""Width of the grid of privacy losses."""

_SIZE = 1 << 19
"""Points of that grid: losses from -52 to 52."""


def subsampled_sum(rows: int, rate: float, each: float, own: float | None) -> Mixture:
    """The sum of `rows` others that contribute `each`, and of one row that contributes `own`; None: it is not there."""
    drawn = np.arange(rows + 1)
    chance = np.asarray(binom.pmf(drawn, rows, rate), dtype=np.float64)
    keep = chance > 1e-18
    means, chance = (each * drawn[keep]).astype(np.float64), chance[keep]
    if own is None:
        return means, chance
    return np.concatenate([means, means + own]), np.concatenate([(1 - rate) * chance, rate * chance])


def pair_epsilon(first: Mixture, second: Mixture, noise: float, releases: int, delta: float) -> float:
    """The larger epsilon of both directions."""
    return max(_epsilon(first, second, noise, releases, delta), _epsilon(second, first, noise, releases, delta))


def _epsilon(first: Mixture, second: Mixture, noise: float, releases: int, delta: float) -> float:
    means = np.concatenate([first[0], second[0]])
    # what lies outside is left out, which only lowers the result
    at = np.linspace(means.min() - 7.5 * noise, means.max() + 7.5 * noise, 10_001)
    logs = [_log_density(mixture, at, noise) for mixture in (first, second)]
    density, loss = np.exp(logs[0]), logs[0] - logs[1]
    mass = (density[1:] + density[:-1]) / 2 * (at[1] - at[0])
    # the loss is smooth, so that its smallest value between two points is at one of them
    lowest = np.floor(np.minimum(loss[1:], loss[:-1]) / STEP).astype(np.int64)
    one = np.bincount(lowest % _SIZE, weights=mass, minlength=_SIZE)
    composed = np.clip(np.fft.irfft(np.fft.rfft(one) ** releases, _SIZE), 0, None)
    # losses from minus half of the grid to half of it; a sum outside has no weight that matters
    losses = np.fft.fftfreq(_SIZE, 1 / _SIZE) * STEP
    assert releases * np.abs((mass * loss[1:]).sum()) < _SIZE * STEP / 8

    def excess(epsilon: float) -> float:
        above = losses > epsilon
        return float((composed[above] * -np.expm1(epsilon - losses[above])).sum()) - 1e-9

    low, high = 0.0, _SIZE * STEP / 2
    if excess(low) <= delta:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > delta else (low, middle)
    return low


def _log_density(mixture: Mixture, at: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    total = np.zeros(len(at))
    for mean, chance in zip(*mixture, strict=True):
        total += chance * np.exp(-0.5 * ((at - mean) / noise) ** 2)
    logs: NDArray[np.float64] = np.log(total) - np.log(noise * np.sqrt(2 * np.pi))
    return logs
