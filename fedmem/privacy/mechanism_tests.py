"""Direct tests of a private mechanism: is the noise in what was released that of the guarantee?

A tester that sees the contributions of clients and the release knows the noise: it is the difference. Under the stated
mechanism it is standard normal in units of z S, independent of everything else. Each test compares one consequence of
that with what was seen, and has an exact or normal p-value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray

SPAN = 64
"""Dimensions of the space of contributions that are looked at."""

PROJECTIONS = 32
"""Numbers that stand for the noise of one release where releases are compared with each other."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """One noisy sum and what went into it, each (P,) in float64, in the order of `arrays`.

    Attributes:
        total: What was released, times its divisor: the sum of contributions with its noise.
        contributions: (K, P) what each contributes before clipping.
        clip: S, the largest norm of a contribution.
        scale: Z S, the standard deviation of the noise.
        arrays: The names of the parameters and their sizes, which add up to P.
        weights: (K,) weights from 0 to 1 of the clipped contributions; None gives all of them 1.
        canaries: (P,) the sum of the directions of canary clients, whose contributions are `canary_length` S long.
    """

    total: FloatArray
    contributions: FloatArray
    clip: float
    scale: float
    arrays: Mapping[str, int]
    weights: FloatArray | None = None
    canaries: FloatArray | None = None
    canary_length: float = 1.0

    @property
    def clipped_sum(self) -> FloatArray:
        """(P,) the sum of contributions as the guarantee counts them, `sum_k a_k min(1, S / |d_k|) d_k`."""
        lengths = np.linalg.norm(self.contributions, axis=1)
        factors = np.minimum(1.0, self.clip / np.maximum(lengths, 1e-300)) * self._weights
        total = np.asarray(factors @ self.contributions)
        return total if self.canaries is None else total + self.clip * self.canaries

    @property
    def noise(self) -> FloatArray:
        """(P,) the noise in units of z S: standard normal under the stated mechanism."""
        return (self.total - self.clipped_sum) / self.scale

    @property
    def directions(self) -> dict[str, FloatArray]:
        """Unit vectors (P,) along which a missing or wrong clip shows.

        `sum`: of the clipped contributions; `excess`: of what clipping takes away from the sum. Either is left out
        where it is zero.
        """
        shortened = self.clipped_sum
        excess = self._weights @ self.contributions - shortened
        if self.canaries is not None:
            excess = excess + self.canary_length * self.clip * self.canaries
        directions = {}
        for name, vector in (("sum", shortened), ("excess", excess)):
            length = float(np.linalg.norm(vector))
            if length > 1e-6 * self.clip:
                directions[name] = vector / length
        return directions

    def in_span(self, rng: np.random.Generator) -> tuple[float, int]:
        """The mean square of the noise within the span of the contributions, and the dimension of that space.

        1 is expected; contributions that are weighed in another way than stated add to it. For more than `SPAN`
        contributions, `SPAN` random mixtures are taken.
        """
        vectors = self.contributions if self.canaries is None else np.vstack([self.contributions, self.canaries])
        if len(vectors) > SPAN:
            vectors = rng.standard_normal((SPAN, len(vectors))) @ vectors
        if not vectors.size or not vectors.any():
            return math.nan, 0
        _, sizes, basis = np.linalg.svd(vectors, full_matrices=False)
        inside = basis[sizes > 1e-9 * sizes[0]] @ self.noise
        return float(np.mean(inside**2)), len(inside)

    @property
    def _weights(self) -> FloatArray:
        return np.ones(len(self.contributions)) if self.weights is None else self.weights


def mean_squares(noise: FloatArray, arrays: Mapping[str, int]) -> dict[str, float]:
    """The mean square of the noise of each array; 1 is expected.

    >>> mean_squares(np.array([1.0, -1.0, 2.0]), {"w": 2, "b": 1})
    {'w': 1.0, 'b': 4.0}
    """
    ends = np.cumsum([0, *arrays.values()])
    return {name: float(np.mean(noise[ends[i] : ends[i + 1]] ** 2)) for i, name in enumerate(arrays)}


def projections(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """(J,) sums of `values` (n,) with random signs, each over coordinates of its own.

    Each is divided by the root of how many coordinates it has. For independent standard normal values the results are
    independent and standard normal. The same generator state gives the same signs, so that equal vectors have equal
    projections. J is the smaller of `PROJECTIONS` and n.
    """
    groups = min(PROJECTIONS, len(values))
    if not groups:
        return np.empty(0)
    signed = values * (1 - 2 * rng.integers(2, size=len(values)))
    place = np.arange(len(values)) % groups
    return np.asarray(np.bincount(place, weights=signed) / np.sqrt(np.bincount(place)))


def p_of_variance(mean_square: Sequence[float], counts: Sequence[int]) -> float:
    """Two-sided p that n standard normal numbers have such a mean square: exact, chi-square with n degrees of freedom.

    >>> p_of_variance([1.0], [1000]) > 0.9, p_of_variance([0.8], [1000]) < 1e-5
    (True, True)
    """
    from scipy.stats import chi2

    total, count = float(np.dot(mean_square, counts)), int(np.sum(counts))
    return min(1.0, 2 * float(min(chi2.cdf(total, count), chi2.sf(total, count))))


def p_of_mean(values: FloatArray) -> float:
    """Two-sided p that the mean of these numbers, each standard normal, is 0: exact.

    >>> round(p_of_mean(np.array([1.96])), 3)
    0.05
    """
    return _two_sided(float(values.sum()) / math.sqrt(len(values)))


def p_of_pairs(first: FloatArray, second: FloatArray) -> float:
    """Two-sided p that pairs (n, J) of standard normal numbers do not correlate, given the second of each pair: exact.

    `sum a b / sqrt(sum b^2)` is standard normal where a is independent of b. Of a chain of releases the conditional
    law of each given its predecessor makes it so in the limit.
    """
    size = float(np.sqrt((second**2).sum()))
    return _two_sided(float((first * second).sum()) / size) if size else 1.0


def batch_statistics(members: BoolArray, rate: float) -> dict[str, float]:
    """Standard scores of the batches of one client, members (steps, rows), each row in independently at `rate`.

    `size`: the sum of sizes. `spread`: the sum of squared deviations of sizes from their mean, by its own mean and
    variance under the binomial law. `overlap`: how many rows are in two consecutive batches, only with two or more
    steps. Each is 0 on average with variance 1. None at rates 0 and 1, where nothing is drawn.

    >>> drawn = np.random.default_rng(0).random((8, 500)) < 0.2
    >>> {name: abs(value) < 3 for name, value in batch_statistics(drawn, 0.2).items()}
    {'size': True, 'spread': True, 'overlap': True}
    """
    steps, rows = members.shape
    if not 0 < rate < 1 or not members.size:
        return {}
    row_variance = rows * rate * (1 - rate)
    sizes = members.sum(axis=1)
    fourth = row_variance * (1 + 3 * (rows - 2) * rate * (1 - rate))
    statistics = {
        "size": float((sizes.sum() - steps * rows * rate) / math.sqrt(steps * row_variance)),
        "spread": float(
            (((sizes - rows * rate) ** 2).sum() - steps * row_variance) / math.sqrt(steps * (fourth - row_variance**2))
        ),
    }
    if steps > 1:
        square = rate * rate
        shared = int((members[1:] & members[:-1]).sum())
        # neighbouring pairs share a batch
        variance = (steps - 1) * rows * square * (1 - square) + 2 * (steps - 2) * rows * square * rate * (1 - rate)
        statistics["overlap"] = float((shared - (steps - 1) * rows * square) / math.sqrt(variance))
    return statistics


def _two_sided(score: float) -> float:
    from scipy.special import log_ndtr

    return min(1.0, 2 * math.exp(float(log_ndtr(-abs(score)))))
