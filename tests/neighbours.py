"""Explicit pairs of neighbours, whose privacy losses are computed here by numbers alone, without fedmem's accountants.

A pair is two mixtures of normal distributions on a line, each a list of (weight, mean). The line is cut into cells, and
losses are rounded down to a grid. Both only lower epsilon, so what is found is a true lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtr
from scipy.stats import binom

Mixture = Sequence[tuple[float, float]]
Pair = tuple[Mixture, Mixture]


def masses(mixture: Mixture, noise: float, edges: np.ndarray) -> np.ndarray:
    """The probability of each cell, exact in both tails."""
    total = np.zeros(len(edges) - 1)
    for weight, mean in mixture:
        at = (edges - mean) / noise
        lower = at[1:] <= 0
        total += weight * np.where(lower, np.diff(ndtr(at)), -np.diff(ndtr(-at)))
    return total


def losses(pair: Pair, noise: float, cells: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Privacy losses of the first against the second, and their probabilities under the first."""
    means = [mean for side in pair for _, mean in side]
    edges = np.linspace(min(means) - 10 * noise, max(means) + 10 * noise, cells + 1)
    first, second = (masses(side, noise, edges) for side in pair)
    seen = (first > 0) & (second > 0)
    return np.log(first[seen] / second[seen]), first[seen]


def divergence(pair: Pair, noise: float, epsilons: np.ndarray, cells: int = 20_000) -> np.ndarray:
    """The hockey-stick divergence of one release at each epsilon, from below."""
    loss, mass = losses(pair, noise, cells)
    return np.array([(mass * np.maximum(0, -np.expm1(epsilon - loss))).sum() for epsilon in epsilons])


def composed(pairs: Sequence[tuple[Pair, float, int]], interval: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses and probabilities of releases in a row: each a pair, its noise, and how many of them there are.

    Losses are rounded down. What falls out of the window of the Fourier transform is less than 1e-12.
    """
    found = [(*losses(pair, noise), count) for pair, noise, count in pairs]
    mean = sum(count * float(loss @ mass) for loss, mass, count in found)
    around = [(loss - loss @ mass, mass, count) for loss, mass, count in found]
    wide = math.sqrt(sum(count * float(loss**2 @ mass) for loss, mass, count in around))
    single = max(float(np.abs(loss[mass > 1e-14]).max()) for loss, mass, _ in around)
    reach = 2 * single + 12 * wide
    size = next_fast_len(2 * int(reach / interval) + 2, real=True)
    transformed, shift = np.ones(size // 2 + 1, dtype=complex), 0
    for loss, mass, count in found:
        kept = mass > 1e-14
        rounded = np.floor(loss[kept] / interval).astype(int)
        centre = round(float(loss @ mass) / interval)
        transformed *= rfft(np.bincount((rounded - centre) % size, mass[kept], size)) ** count
        shift += centre * count
    probabilities = np.roll(irfft(transformed, size), size // 2)
    assert abs(mean - shift * interval) < reach
    return (np.arange(size) - size // 2 + shift) * interval, probabilities


def epsilon_at_least(pairs: Sequence[tuple[Pair, float, int]], delta: float, interval: float) -> float:
    """The epsilon of these releases at delta, from below, for the first of each pair against the second."""
    loss, mass = composed(pairs, interval)

    def exceeds(epsilon: float) -> bool:
        over = loss > epsilon
        return float((mass[over] * -np.expm1(epsilon - loss[over])).sum()) > delta

    if not exceeds(0.0):
        return 0.0
    low, high = 0.0, float(loss[-1])
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return low


def turned(pair: Pair) -> Pair:
    """The same neighbours in the other order."""
    return pair[1], pair[0]


def opposed(rate: float) -> Pair:
    """A cohort of a fixed size: all others send -1, and the unit 1 or 0."""
    return ((1 - rate, -1.0), (rate, 1.0)), ((1 - rate, -1.0), (rate, 0.0))


def subsampled_sum(rows: int, rate: float, each: float, own: float | None) -> Mixture:
    """The sum of `rows` others that contribute `each`, and of one row that contributes `own`; None: it is not there."""
    drawn = np.arange(rows + 1)
    chances = binom.pmf(drawn, rows, rate)
    others = [
        (float(chance), each * int(count)) for count, chance in zip(drawn, chances, strict=True) if chance > 1e-18
    ]
    if own is None:
        return others
    return [
        *(((1 - rate) * weight, mean) for weight, mean in others),
        *((rate * weight, mean + own) for weight, mean in others),
    ]
