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

p is by shuffled examples, with a statistic that is divided by its own spread; see DiCiccio and Romano (2017). Like the
interval, the spread is over examples or owners.

The interval is over examples, or over their owners where at least `FEWEST` hold some. The whole procedure is repeated
on examples drawn with replacement, with the same runs. Runs are not drawn again, since a run that is drawn twice can be
in both halves.

Reference: Spearman (1904), The proof and measurement of association between two things. DiCiccio and Romano (2017),
Robust permutation tests for correlation and regression coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray

LOWEST = 0.2
"""The smallest reliability of a quantity whose agreement is defined."""

FEWEST = 8
"""The fewest owners that are drawn instead of examples."""

EACH = 2
"""The fewest runs with an example, and without it, in each half."""

_BLOCK = 999
"""Shuffles that are judged at once."""

_ENOUGH = 20
"""Shuffles as extreme as the observed order after which no further ones are made."""

Variant = Literal["in", "out", "gain"]
"""The mean over runs with an example, over runs without it, or the first minus the second."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """H halvings of R runs with coins `is_in` (R, m): `first` (H, R) are the runs of half A, all others of half B.

    Twins are in the same half.
    """

    first: BoolArray
    is_in: BoolArray

    @classmethod
    def draw(cls, is_in: BoolArray, count: int, rng: np.random.Generator, coin_rows: IntArray | None = None) -> Halves:
        """Random halvings; with an odd number of runs, half A has one less. `coin_rows` (R,) are equal for twins."""
        coin_rows = np.arange(len(is_in)) if coin_rows is None else coin_rows
        rows = int(coin_rows.max()) + 1
        order = rng.permuted(np.tile(np.arange(rows), (count, 1)), axis=1)
        first = np.zeros((count, rows), dtype=bool)
        np.put_along_axis(first, order[:, : rows // 2], True, axis=1)
        return cls(first=first[:, coin_rows], is_in=is_in)

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
class Resampling:
    """Draws and shuffles of n examples that are shared by all quantities, so that agreements can be subtracted.

    `weights` (n, B): how often each of B draws has each example. `clusters` (n,) are equal for examples that are drawn
    together.
    """

    weights: FloatArray
    clusters: IntArray
    shuffles: Shuffles

    @classmethod
    def draw(cls, owner: IntArray, rng: np.random.Generator, *, draws: int = 200, shuffles: int = 999) -> Resampling:
        """Examples of these owners (n,) with replacement, or all examples of owners drawn so."""
        owners, place = np.unique(owner, return_inverse=True)
        clusters = place.reshape(-1) if len(owners) >= FEWEST else np.arange(len(owner))
        size = len(owners) if len(owners) >= FEWEST else len(owner)
        counts = rng.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64).T
        seed = int(rng.integers(2**63))
        return cls(weights=counts[clusters], clusters=clusters, shuffles=Shuffles(limit=shuffles, seed=seed))


@dataclass(frozen=True, kw_only=True)
class Shuffles:
    """Orders of n examples, the same whenever they are asked for; at most `limit` of them."""

    limit: int
    seed: int
    _orders: dict[tuple[int, int], NDArray[np.int32]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def blocks(self, n: int) -> Iterator[NDArray[np.int32]]:
        """The places (S, n) of shuffled pairs in a flattened matrix (n, n), block by block."""
        for number, start in enumerate(range(0, self.limit, _BLOCK)):
            if (n, number) not in self._orders:
                rng = np.random.default_rng([self.seed, n, number])
                shape = min(_BLOCK, self.limit - start), 1
                orders = rng.permuted(np.tile(np.arange(n, dtype=np.int32), shape), axis=1)
                self._orders[n, number] = orders + n * np.arange(n, dtype=np.int32)
            yield self._orders[n, number]


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Ranks of a quantity over n examples, from half A and half B of the runs, centred and of length 1.

    `observed` (2, H, n) are those of the examples, and `drawn` (2, H, n, B) those within each draw. Sums of products
    over examples are correlations. `reliability` is the correlation of A with B, and `of_draws` (B,) that in each draw.
    """

    observed: FloatArray
    drawn: NDArray[np.float32]
    reliability: float
    of_draws: FloatArray

    @classmethod
    def of(cls, values: FloatArray, weights: FloatArray) -> Ranks:
        """The ranks of values (2, H, n) without NaN, under weights (n, B) of draws."""
        observed, narrow = _ranks(values), weights.astype(np.float32)
        roots = np.sqrt(narrow)
        drawn = np.empty((*values.shape, weights.shape[1]), dtype=np.float32)
        for place in np.ndindex(values.shape[:2]):
            drawn[place] = _weighted_ranks(values[place], narrow, roots)
        return cls(
            observed=observed,
            drawn=drawn,
            reliability=_mean_product(observed[0], observed[1]),
            of_draws=_mean_products(drawn[0], drawn[1]),
        )


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """How two quantities rank n examples: see the module.

    `split` has the p-value `p` of no relation, by shuffles of the examples. `low` and `high` are the interval of
    `corrected`, and `of_draws` (B,) what it is in each draw.
    """

    n: int
    split: float
    reliability: float
    other_reliability: float
    corrected: float
    low: float
    high: float
    p: float
    of_draws: FloatArray


def rank_agreement(first: Ranks, second: Ranks, shuffles: Shuffles, clusters: IntArray | None = None) -> RankAgreement:
    """The agreement of two quantities over the same examples, under the same draws; `clusters` (n,) for p."""
    n = first.observed.shape[-1]
    if n < 3:
        names = "split", "reliability", "other_reliability", "corrected", "low", "high", "p"
        return RankAgreement(n=n, **dict.fromkeys(names, math.nan), of_draws=np.full(len(first.of_draws), np.nan))
    one, two = first.observed, second.observed
    split = 0.5 * (_mean_product(one[0], two[1]) + _mean_product(one[1], two[0]))
    splits = 0.5 * (_mean_products(first.drawn[0], second.drawn[1]) + _mean_products(first.drawn[1], second.drawn[0]))
    corrected = float(_correct(split, first.reliability, second.reliability, n))
    of_draws = _correct(splits, first.of_draws, second.of_draws, n)
    low, high = _interval(corrected, of_draws)
    return RankAgreement(
        n=n,
        split=split,
        reliability=first.reliability,
        other_reliability=second.reliability,
        corrected=corrected,
        low=low,
        high=high,
        p=_p(one, two, shuffles, np.arange(n) if clusters is None else clusters),
        of_draws=of_draws,
    )


def difference(one: RankAgreement, other: RankAgreement, *, in_size: bool = False) -> tuple[float, float, float]:
    """The first corrected correlation minus the second with its interval from the same draws; of sizes if asked."""
    size = np.abs if in_size else np.asarray
    gap = float(size(one.corrected) - size(other.corrected))
    return gap, *_interval(gap, size(one.of_draws) - size(other.of_draws))


def _interval(value: float, of_draws: FloatArray) -> tuple[float, float]:
    """Quantiles of draws, which reach to the value; NaN where one draw in five or more is undefined."""
    if not (math.isfinite(value) and np.isfinite(of_draws).mean() > 0.8):
        return math.nan, math.nan
    low, high = np.nanquantile(of_draws, [0.025, 0.975]).tolist()
    return min(low, value), max(high, value)


def _ranks(values: FloatArray) -> FloatArray:
    """Ranks over examples (..., n), ties at their middle, of mean 0 and length 1; zeros where all are equal."""
    from scipy.stats import rankdata

    if not values.shape[-1]:
        return values
    ranks = rankdata(values, axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.sqrt(np.square(centred).sum(axis=-1, keepdims=True))
    return np.asarray(np.divide(centred, length, out=np.zeros_like(centred), where=length > 0))


def _weighted_ranks(
    values: FloatArray, weights: NDArray[np.float32], roots: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(n, B) the same among the examples of each draw, times the root of how often the draw has the example."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.zeros((len(values) + 1, weights.shape[1]), dtype=np.float32)  # whole numbers, thus exact
    np.cumsum(weights[order], axis=0, out=below[1:])
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    group = np.cumsum(starts) - 1
    bounds = np.append(np.flatnonzero(starts), len(values))
    first, end = np.empty_like(order), np.empty_like(order)
    first[order], end[order] = bounds[group], bounds[group + 1]
    # twice the middle of the places of the group, from the middle of all places
    centred = below[first] + below[end] - below[-1]
    centred *= roots
    length = np.sqrt(np.einsum("nb,nb->b", centred, centred))
    return np.asarray(centred / np.where(length > 0, length, np.float32(1.0)))


def _mean_product(one: FloatArray, other: FloatArray) -> float:
    """The mean correlation over halvings."""
    return float((one * other).sum(axis=-1).mean())


def _mean_products(one: NDArray[np.float32], other: NDArray[np.float32]) -> FloatArray:
    """(B,) the mean correlation over halvings in each draw."""
    return np.asarray(np.einsum("hnb,hnb->b", one, other), dtype=np.float64) / max(len(one), 1)


def _correct(split: ArrayLike, own: ArrayLike, other: ArrayLike, n: int) -> FloatArray:
    """The correlation without noise, NaN where a reliability is too low; noise can carry it beyond 1, where it ends."""
    is_known = np.minimum(own, other) >= max(LOWEST, 2 / math.sqrt(max(n - 1, 1)))
    with np.errstate(invalid="ignore", divide="ignore"):
        corrected = np.clip(np.asarray(split) / np.sqrt(np.multiply(own, other)), -1.0, 1.0)
    return np.where(is_known, corrected, np.nan)


def _p(one: FloatArray, two: FloatArray, shuffles: Shuffles, clusters: IntArray) -> float:
    """Two-sided p of no relation: shuffles of the examples of one quantity, the observed order among them.

    The statistic is Student's, Σ z / √(Σ z²) over examples, with z the mean over halvings of the product of both ranks.
    Where examples are drawn by owner, the second sum is over owners, of the squared sum of z of each. Owners who differ
    in both quantities by chance would otherwise give p ≤ .05 in half of simulations, with ten owners of eight examples.
    Over halvings the two quantities of one example share the noise of its runs, and those of two examples do not. So Σ
    z alone varies more than when it is shuffled: p ≤ .05 in 15 to 19 % of simulations with shuffled coins. Shuffles
    end after a block once `_ENOUGH` are as extreme, which keeps p valid (Besag and Clifford, 1991).
    """
    # the mean over halvings and both crossings is a sum over pairs of examples of one matrix
    pairs = (one[0].T @ two[1] + one[1].T @ two[0]) / (2 * len(one[0]))
    of_cluster = None
    if len(np.unique(clusters)) < len(clusters):
        of_cluster = (clusters[:, None] == np.unique(clusters)).astype(np.float64)
    observed = float(_student(np.diagonal(pairs), of_cluster))
    extreme, drawn, flat = 0, 0, pairs.ravel()
    for places in shuffles.blocks(len(pairs)):
        extreme += int(np.count_nonzero(np.abs(_student(flat[places], of_cluster)) >= abs(observed) - 1e-12))
        drawn += len(places)
        if extreme >= _ENOUGH:
            break
    return (1 + extreme) / (1 + drawn)


def _student(products: FloatArray, of_cluster: FloatArray | None = None) -> FloatArray:
    """Σ z / √(Σ z²) over the last axis; 0 where all are 0. The squares are of sums of clusters (n, G), if any."""
    sums = products if of_cluster is None else products @ of_cluster
    length = np.sqrt(np.einsum("...n,...n->...", sums, sums))
    return np.asarray(products.sum(axis=-1) / np.where(length > 0, length, 1.0))


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
