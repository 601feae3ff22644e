"""Rank agreement of two quantities of single examples, from runs that do not overlap and corrected for their noise.

Memorisation and a proxy from the same runs share the noise of these runs, which alone makes them agree or disagree. So
runs are split into halves A and B. With ρ Spearman's correlation over examples and H random halvings,

    split = mean of ρ(memorisation from A, proxy from B) and ρ(memorisation from B, proxy from A).

It is 0 where the two are unrelated, and too small where they are related, since halves are noisy. With the
reliabilities r of both, the mean correlations of a quantity from A with itself from B,

    corrected = split / √(r of memorisation × r of the proxy),

the correlation that values without noise would have (Spearman, 1904). It is undefined where a reliability is below
`LOWEST`, or below 2 / √(n − 1), two standard errors of a correlation of noise. The data then cannot say how the
examples are ranked.

The interval is over examples, or over their owners where at least `FEWEST` hold some. The whole procedure is repeated
on examples drawn with replacement, with the same runs. Runs are not drawn again, since a run that is drawn twice can be
in both halves.

Reference: Spearman (1904), The proof and measurement of association between two things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray

LOWEST = 0.2
"""The smallest reliability of a quantity whose agreement is defined."""

FEWEST = 8
"""The fewest owners that are drawn instead of examples."""

EACH = 2
"""The fewest runs with an example, and without it, in each half."""

Variant = Literal["in", "out", "gain"]
"""The mean over runs with an example, over runs without it, or the first minus the second."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """H halvings of R runs with coins `is_in` (R, m): `first` (H, R) are the runs of half A, all others of half B."""

    first: BoolArray
    is_in: BoolArray

    @classmethod
    def draw(cls, is_in: BoolArray, count: int, rng: np.random.Generator) -> Halves:
        """Random halvings; with an odd number of runs, half A has one less."""
        runs = len(is_in)
        order = rng.permuted(np.tile(np.arange(runs), (count, 1)), axis=1)
        first = np.zeros((count, runs), dtype=bool)
        np.put_along_axis(first, order[:, : runs // 2], True, axis=1)
        return cls(first=first, is_in=is_in)

    def means(self, values: FloatArray, variant: Variant) -> FloatArray:
        """(2, H, m) the variant of a quantity (R, m) from half A and from half B; NaN with too few runs."""
        is_measured = np.isfinite(values)
        filled = np.where(is_measured, values, 0.0)
        halves = np.stack([self.first, ~self.first]).astype(np.float64)
        sides = {}
        for side, coin in (("in", self.is_in), ("out", ~self.is_in)):
            counted = (is_measured & coin).astype(np.float64)
            counts = halves @ counted
            with np.errstate(invalid="ignore", divide="ignore"):
                sides[side] = np.where(counts >= EACH, halves @ (filled * counted) / counts, np.nan)
        return sides["in"] - sides["out"] if variant == "gain" else sides[variant]


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """How two quantities rank n examples: see the module.

    `split` has the p-value `p` of no relation, by `shuffles` shuffles of the examples. `low` and `high` are the
    interval of `corrected`.
    """

    n: int
    split: float
    reliability: float
    other_reliability: float
    corrected: float
    low: float
    high: float
    p: float


def rank_agreement(
    first: FloatArray,
    second: FloatArray,
    owner: IntArray,
    rng: np.random.Generator,
    *,
    draws: int = 200,
    shuffles: int = 999,
) -> RankAgreement:
    """The agreement of two quantities, each (2, H, n) from halves A and B of the runs.

    Args:
        first: Memorisation.
        second: The proxy.
        owner: (n,) the owner of each example.
        rng: Draws examples and shuffles.
        draws: Repetitions for the interval.
        shuffles: Shuffles for p.
    """
    is_usable = ~(np.isnan(first).any((0, 1)) | np.isnan(second).any((0, 1)))
    first, second, owner = first[:, :, is_usable], second[:, :, is_usable], owner[is_usable]
    n = len(owner)
    if n < 3:
        unknown = dict.fromkeys(
            ("split", "reliability", "other_reliability", "corrected", "low", "high", "p"), math.nan
        )
        return RankAgreement(n=n, **unknown)
    split, own, other = _correlations(first, second)
    corrected = float(_correct(split, own, other, n))
    columns = _draw_again(owner, draws, rng)
    again = np.array([_correct(*_correlations(first[:, :, c], second[:, :, c]), n) for c in columns])
    low = high = math.nan
    if math.isfinite(corrected) and np.isfinite(again).mean() > 0.8:
        low, high = np.nanquantile(again, [0.025, 0.975]).tolist()
    return RankAgreement(
        n=n,
        split=float(split),
        reliability=float(own),
        other_reliability=float(other),
        corrected=corrected,
        low=min(low, corrected),
        high=max(high, corrected),
        p=_p(first, second, float(split), rng, shuffles),
    )


def _correlations(first: FloatArray, second: FloatArray) -> tuple[float, float, float]:
    """Across: the mean of ρ(first A, second B) and ρ(first B, second A); and the reliabilities of both."""
    one, two = _ranks(first), _ranks(second)
    across = 0.5 * (_mean_product(one[0], two[1]) + _mean_product(one[1], two[0]))
    return across, _mean_product(one[0], one[1]), _mean_product(two[0], two[1])


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks over examples (..., n), ties at their middle, of mean 0 and length 1; zeros where all are equal."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=-1, keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


def _mean_product(one: FloatArray, other: FloatArray) -> float:
    """The mean correlation over halvings."""
    return float((one * other).sum(axis=-1).mean())


def _correct(split: float, own: float, other: float, n: int) -> float:
    """The correlation without noise, NaN where a reliability is too low; noise can carry it beyond 1, where it ends."""
    if not min(own, other) >= max(LOWEST, 2 / math.sqrt(max(n - 1, 1))):
        return math.nan
    return float(np.clip(split / math.sqrt(own * other), -1.0, 1.0))


def _draw_again(owner: IntArray, draws: int, rng: np.random.Generator) -> list[IntArray]:
    """The examples of each repetition: examples drawn with replacement, or all examples of owners drawn so."""
    owners = np.unique(owner)
    if len(owners) < FEWEST:
        return list(rng.integers(len(owner), size=(draws, len(owner))))
    rows_of = [np.flatnonzero(owner == each) for each in owners]
    return [np.concatenate([rows_of[i] for i in rng.integers(len(owners), size=len(owners))]) for _ in range(draws)]


def _p(first: FloatArray, second: FloatArray, split: float, rng: np.random.Generator, shuffles: int) -> float:
    """Two-sided p of no relation: shuffles of the examples of one quantity, the observed order among them."""
    one, two = _ranks(first), _ranks(second)
    # the mean over halvings and both crossings is a sum over pairs of examples of one matrix
    pairs = (np.einsum("hi,hj->ij", one[0], two[1]) + np.einsum("hi,hj->ij", one[1], two[0])) / (2 * len(one[0]))
    n = len(pairs)
    orders = rng.permuted(np.tile(np.arange(n), (shuffles, 1)), axis=1)
    shuffled = pairs[np.arange(n), orders].sum(axis=1)
    return float((1 + np.count_nonzero(np.abs(shuffled) >= abs(split) - 1e-12)) / (shuffles + 1))


def partial_out(values: FloatArray, given: Mapping[str, FloatArray]) -> FloatArray:
    """Residuals of the ranks of values (..., n) after a linear fit to columns (n,), such as those of a class.

    >>> flat = partial_out(np.array([[1.0, 2.0, 3.0, 4.0]]), {"line": np.array([0.0, 1.0, 2.0, 3.0])})
    >>> bool(np.abs(flat).max() < 1e-12)
    True
    """
    ranks = _ranks(values)
    design = np.column_stack([np.ones(values.shape[-1]), *given.values()])
    flat = ranks.reshape(-1, ranks.shape[-1])
    fitted = design @ np.linalg.lstsq(design, flat.T, rcond=None)[0]
    return np.asarray((flat - fitted.T).reshape(ranks.shape))
