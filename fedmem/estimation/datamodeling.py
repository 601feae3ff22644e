"""Linear datamodeling score: whether influences of examples predict how outcomes change with what was trained on.

The influence τ_ij is that of example j on target i. Up to a constant, influences predict the outcome of i in run r by
the sum over the examples that are in,

    g_i(r) = Σ_j τ_ij · is_in[r, j].

The score of target i is Spearman's correlation over runs of g_i with the outcome of i (Park et al., 2023). Influences
from the runs that they are scored on would predict the noise of these runs, and have a high score whatever the truth.
So influences carry the runs that they are from, and `score` refuses to score them on any of these.

Runs are split into two halves. Influences from each half are scored on the other, and both scores are averaged. Twins
are in the same half, since they have the same coins.

Reference: Park, Georgiev, Ilyas, Leclerc and Madry (2023), TRAK: attributing model behavior at scale. Ilyas, Park,
Engstrom, Leclerc and Madry (2022), Datamodels: predicting predictions from training data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.randomisation import two_sided
from fedmem.estimation.rank_agreement import Halves
from fedmem.estimation.statistics import jackknife, mean
from fedmem.seeding import stream

FEWEST = 4
"""The fewest coin rows in which a target has outcomes, in each half."""

_ORDERS = 25
"""Orders of runs whose scores are formed at once."""

_HALVINGS = 64
"""Halvings of which the most balanced one is taken."""


@dataclass(frozen=True, kw_only=True)
class Influences:
    """Influences (..., Q, n) of n examples on Q targets, and the runs (R,) that they are from. NaN counts as 0."""

    values: FloatArray
    runs: BoolArray


def score(influences: Influences, outcomes: FloatArray, coins: BoolArray, runs: BoolArray) -> FloatArray:
    """(..., Q) the score of each target on some runs.

    Runs without any outcome, as of a model that has diverged, are left out. A score is NaN where a target has no
    outcome in another run, where runs have the same outcome, or the same prediction.

    Args:
        influences: From other runs.
        outcomes: (R, Q) such as margins, NaN where there is none.
        coins: (..., R, n) whether each example is in; several where scores under other coins are asked for.
        runs: (R,) the runs to score on.

    Raises:
        ValueError: if influences are from one of these runs. Twins of these are not found; see `ScoredModels`.

    Examples:
        >>> coins = np.array([[True, False], [False, True], [True, True], [False, False]])
        >>> first, second = np.arange(4) < 2, np.arange(4) >= 2
        >>> influences = Influences(values=np.array([[1.0, 0.0]]), runs=first)
        >>> outcomes = np.array([[0.0], [0.0], [3.0], [1.0]])
        >>> score(influences, outcomes, coins, second).tolist()
        [1.0]
        >>> score(influences, outcomes, coins, first)
        Traceback (most recent call last):
        ValueError: influences are from runs 0, 1, on which they are to be scored; score them on other runs
    """
    from scipy.stats import rankdata

    both = np.flatnonzero(influences.runs & runs)
    if len(both):
        some = ", ".join(map(str, both[:4].tolist()))
        raise ValueError(f"influences are from runs {some}, on which they are to be scored; score them on other runs")
    shown = runs & ~np.isnan(outcomes).all(axis=1)
    predictions = coins[..., shown, :].astype(np.float64) @ np.nan_to_num(influences.values).swapaxes(-1, -2)
    if not shown.any():
        return np.full((*predictions.shape[:-2], predictions.shape[-1]), np.nan)
    scale = np.abs(predictions).max(axis=-2, keepdims=True, initial=0.0)
    # sums of the same terms in another order differ by rounding
    rounded = np.round(predictions / np.where(scale > 0, scale, 1.0), 10)
    ranks, goals = (rankdata(each, axis=-2) for each in (rounded, outcomes[shown]))
    ranks, goals = (each - each.mean(axis=-2, keepdims=True) for each in (ranks, goals))
    length = np.sqrt(np.square(ranks).sum(axis=-2) * np.square(goals).sum(axis=-2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(length > 0, (ranks * goals).sum(axis=-2) / length, np.nan))


InfluencesFrom = Callable[[BoolArray, BoolArray], FloatArray]
"""Runs (R,) and coins (..., R, n) -> influences (Q, n) or (..., Q, n) from these runs alone."""


def mean_of_models(values: FloatArray) -> InfluencesFrom:
    """The mean of influences (R, Q, n), which the model of each run has, over those of some runs."""
    return lambda runs, coins: mean(values[runs], axis=0)


def datamodel(outcomes: FloatArray) -> InfluencesFrom:
    """The mean of outcomes (R, Q) over in runs minus that over out runs, among some runs; NaN without both."""

    def influences(runs: BoolArray, coins: BoolArray) -> FloatArray:
        inside, known = coins[..., runs, :].astype(np.float64), ~np.isnan(outcomes[runs])
        filled = np.where(known, outcomes[runs], 0.0)
        sums, counts = filled.T @ inside, known.T.astype(np.float64) @ inside
        total, all_runs = filled.sum(axis=0)[:, None], known.sum(axis=0)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums / counts - (total - sums) / (all_runs - counts))

    return influences


@dataclass(frozen=True, kw_only=True)
class ScoredModels:
    """The models of one place, such as a client, on Q targets in R runs.

    Attributes:
        influences: From any runs.
        outcomes: (R, Q), NaN where there is none.
        coins: (R, n) of the n examples whose influence is summed.
        omitted: (Q, n) whether the influence of an example on a target is left out of its sum.
    """

    influences: InfluencesFrom
    outcomes: FloatArray
    coins: BoolArray
    omitted: BoolArray

    def scores(
        self, half: BoolArray, coin_rows: IntArray, kept: BoolArray, orders: IntArray | None = None
    ) -> FloatArray:
        """(Q,) the mean of both scores of each target, from the runs that are kept.

        Args:
            half: (R,) the runs of one half, with twins of a run in the same half.
            coin_rows: (R,) equal for twins.
            kept: (R,) the runs that are looked at.
            orders: (S, R) the run from which each run takes its coins, S times for (S, Q); None for its own coins.
        """
        coins = self.coins if orders is None else self.coins[orders]
        known = ~np.isnan(self.outcomes)
        both = []
        for source, goal in ((half, ~half), (~half, half)):
            values = np.array(self.influences(source & kept, coins))
            values[..., self.omitted] = 0.0
            found = score(Influences(values=values, runs=source), self.outcomes, coins, goal & kept)
            enough = [len(np.unique(coin_rows[goal & kept & column])) >= FEWEST for column in known.T]
            both.append(np.where(np.array(enough, dtype=bool), found, np.nan))
        return np.asarray(np.mean(both, axis=0))


@dataclass(frozen=True, kw_only=True)
class DatamodelingScore:
    """The mean of the scores of `n` targets, its interval by the jackknife over coin rows, and p of no relation."""

    value: float
    low: float
    high: float
    p: float
    n: int


def mean_score(
    parts: Sequence[ScoredModels], half: BoolArray, coin_rows: IntArray, shuffles: IntArray
) -> DatamodelingScore | None:
    """The mean score over all targets of all parts; None where no target has one.

    The targets are those with a score when all runs are looked at. p is two-sided. Coins are dealt to other runs of the
    same half, in S orders (S, R). Then outcomes have nothing to do with coins, and the mean over models of a half stays
    as it is.
    """
    runs = np.ones(len(half), dtype=bool)
    is_scored = [~np.isnan(part.scores(half, coin_rows, runs)) for part in parts]
    count = sum(int(np.count_nonzero(some)) for some in is_scored)
    if not count:
        return None

    def total(kept: BoolArray, orders: IntArray | None = None) -> FloatArray:
        sums = [
            part.scores(half, coin_rows, kept, orders)[..., some] for part, some in zip(parts, is_scored, strict=True)
        ]
        return np.asarray(np.concatenate(sums, axis=-1).mean(axis=-1))

    whole = float(total(runs))
    low, high = jackknife(whole, np.array([float(total(coin_rows != row)) for row in np.unique(coin_rows)]))
    orders = np.array([order_within(half, order, coin_rows) for order in shuffles], dtype=np.int64)
    blocks = [total(runs, orders[start : start + _ORDERS]) for start in range(0, len(orders), _ORDERS)]
    p = two_sided(np.concatenate([[whole], *blocks])) if blocks else float("nan")
    return DatamodelingScore(value=whole, low=max(low, -1.0), high=min(high, 1.0), p=p, n=count)


def order_within(half: BoolArray, order: IntArray, coin_rows: IntArray) -> IntArray:
    """(R,) a random order of runs, made to move coins within each half alone; twins take the coins of twins.

    Among runs of one half, the order in which a uniform order has them is uniform.

    >>> half = np.array([True, True, False, False])
    >>> order_within(half, np.array([3, 1, 0, 2]), np.arange(4)).tolist()
    [1, 0, 2, 3]
    """
    _, first, place = np.unique(coin_rows, return_index=True, return_inverse=True)
    target = place.reshape(-1)[order[first]]
    moved = np.empty_like(first)
    for side in (half[first], ~half[first]):
        rows = np.flatnonzero(side)
        moved[rows] = rows[np.argsort(np.argsort(target[rows]))]
    return np.asarray(first[moved][place.reshape(-1)])


def balanced_half(is_in: BoolArray, coin_rows: IntArray) -> BoolArray:
    """(R,) the runs of one half; the same for the same coins. Twins are in the same half.

    Of some random halvings, it is the one in which examples are in about as often in both halves.

    >>> half = balanced_half(np.eye(4, dtype=bool), np.array([0, 0, 1, 1]))
    >>> half.sum(), half[0] == half[1]
    (np.int64(2), np.True_)
    """
    halves = Halves.draw(is_in, _HALVINGS, stream(0, "datamodeling halves"), coin_rows).first
    inside = is_in.astype(np.float64)
    differences = np.where(halves, 1.0, -1.0) @ inside
    return np.asarray(halves[np.square(differences).sum(axis=1).argmin()])


def ceiling(outcomes: Sequence[FloatArray], coin_rows: IntArray) -> tuple[float, float, float]:
    """√(SNR / (1 + SNR)) and its interval: the largest correlation with the outcome of a run that coins can have.

    SNR is the variance over coin rows, without noise, divided by the variance between twins. The square of the result
    is the mean over targets of the first variance's share of both. NaN without twins, and where noise makes the mean
    share negative. The interval is by the jackknife over coin rows.

    Args:
        outcomes: (R, Q) of each part; targets without an outcome in some run are left out.
        coin_rows: (R,) equal for twins.

    Examples:
        >>> rows = np.tile(np.arange(4), 2)
        >>> ceiling([np.arange(4.0)[rows][:, None]], rows)[0]
        1.0
    """
    undefined = float("nan"), float("nan"), float("nan")
    rows, counts = np.unique(coin_rows, return_counts=True)
    values = np.concatenate(outcomes, axis=1) if outcomes else np.empty((len(coin_rows), 0))
    values = values[:, np.isfinite(values).all(axis=0)]
    if counts.min() < 2 or not values.shape[1]:
        return undefined
    by_row = np.stack([values[coin_rows == row][: counts.min()] for row in rows])

    def value(some: FloatArray) -> float:
        noise = some.var(axis=1, ddof=1).mean(axis=0)
        between = some.mean(axis=1).var(axis=0, ddof=1) - noise / some.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = float(mean(between / (between + noise), axis=0))
        return float(np.sqrt(share)) if share >= 0 else float("nan")

    whole = value(by_row)
    without = np.array([value(np.delete(by_row, row, axis=0)) for row in range(len(rows))])
    low, high = jackknife(whole, without)
    return whole, max(low, 0.0), min(high, 1.0)
