"""Is there any memorisation? An exact p from the coins, dealt again as they could have fallen.

Only coins decided what was trained on. The hypothesis is that training on the examples of a kind makes no difference
to what models say about any of them. Then their values would have been the same under any other coins of the kind. So
the statistic of the actual coins is one of P + 1 that are equally likely (Fisher, 1935). The p is twice the smaller of
the shares at least as high and at least as low, with the actual coins among them. It holds its level for any number of
runs and examples.

Where runs have inclusion rates of their own, runs are not exchangeable, and coins are drawn again with the rates of
their runs. Given the rates, the actual coins are one more such draw, so that p holds its level as well.

The deals are all ways in which the coins of a kind could have fallen, where these are at most as many as the draws: 70
for one example in 8 runs. Otherwise they are drawn (Monte Carlo), and p has an error of its own.

An example that changes answers about other examples of its kind, and none about itself, violates the hypothesis. In
simulations where such effects are the only difference between runs, p is at most 0.05 in 13 to 17 % of banks. Where
they are as large as the other differences between pairs, it is so in 6 to 10 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations, product

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import CoinPermutations
from fedmem.estimation.twins import average_twins, coins_of_rows, sets_without_twins

_SHUFFLES = 200
"""Permutations of the runs that go with re-dealt coins."""

_PART = 2**22
"""Coins that are handled at once."""


def permute_coins(audit: AuditSet, count: int, rng: np.random.Generator) -> CoinPermutations:
    """The coins of an audit set and `count` other ways in which they could have fallen, with as many runs in.

    The coins of twins are dealt together, and a shuffle moves all runs of a coin row to those of another. The coins of
    a coin group are dealt together as well. Where runs have inclusion rates, coins are drawn again with these rates.
    The number of runs in is then not held.
    """
    of_rows = coins_of_rows(audit)
    group, first = _groups(audit.coin_group, np.arange(len(audit)))
    of_groups = of_rows if audit.coin_group is None else of_rows[:, first]
    tiled = np.broadcast_to(of_groups, (count, *of_groups.shape))
    rates = audit.inclusion_rates
    if rates is not None:
        of_runs = average_twins(rates[:, None], audit)
        again = rng.random(tiled.shape) < of_runs
    else:
        again = rng.permuted(tiled, axis=1) if count else tiled
    again = again if audit.coin_group is None else again[:, :, group]
    num_shuffles = _SHUFFLES if rates is None else 0
    shuffles = rng.permuted(np.tile(np.arange(len(of_rows)), (num_shuffles, 1)), axis=1)
    if audit.coin_row is not None:
        rows, sets = audit.coin_rows, sets_without_twins(audit)
        again, of_rows, moved = again[:, rows], audit.is_in, np.empty((num_shuffles, audit.runs), dtype=np.int64)
        for runs in sets:
            run_of_row = runs[np.argsort(rows[runs])]
            moved[:, runs] = run_of_row[shuffles[:, rows[runs]]]
        shuffles = moved
    return CoinPermutations(
        coins=np.concatenate([of_rows[None], again]),
        shuffles=shuffles,
        coin_row=audit.coin_row,
        coin_group=audit.coin_group,
        has_rates=rates is not None,
    )


def two_sided(statistics: FloatArray) -> float:
    """Twice the smaller tail of the first of P + 1 values among all, at most 1; 1 where they are all alike.

    Values that differ by rounding alone are equal; further values that are NaN count as far out. A first value that is
    NaN is no evidence, and its p is 1.

    >>> two_sided(np.array([5.0, 1.0, 2.0, 3.0])), two_sided(np.array([2.0, 1.0, 2.0, 3.0]))
    (0.5, 1.0)
    """
    if math.isnan(statistics[0]):
        return 1.0
    slack = 1e-9 * max(float(np.nanmax(np.abs(statistics), initial=0.0)), 1e-300)
    unknown = np.isnan(statistics)
    high, low = (unknown | (side * (statistics - statistics[0]) >= -slack) for side in (1, -1))
    return min(1.0, 2 * min(float(high.mean()), float(low.mean())))


def of_means(values: FloatArray, rows: IntArray, redeals: CoinPermutations, *, gap: bool = True) -> float:
    """p of the mean over examples of (mean over in runs − mean over out runs), or of the former alone without `gap`.

    `values` (R, m) of all examples, NaN where there is none; the statistic is over the examples `rows`. NaN where no
    deal changes it, as with a single run.
    """
    columns = values[:, rows]
    is_measured = ~np.isnan(columns)
    zero_filled = np.where(is_measured, columns, 0.0)
    total, count = zero_filled.sum(0), is_measured.sum(0)
    means = []
    for coins in _deal_blocks(deals_of(redeals, rows)):
        inside, n = (
            np.einsum("prm,rm->pm", coins, zero_filled),
            np.einsum("prm,rm->pm", coins, is_measured.astype(np.float64)),
        )
        rest = count - n
        usable = (n > 0) & ((rest > 0) if gap else True)
        with np.errstate(divide="ignore", invalid="ignore"):
            differences = inside / n - ((total - inside) / rest if gap else 0.0)
            means.append(np.where(usable, differences, 0.0).sum(1) / usable.sum(1))
    return _p(np.concatenate(means), redeals)


def of_auc(scores: FloatArray, rows: IntArray, redeals: CoinPermutations) -> float:
    """p of the AUC of scores (R, n) that do not depend on the coins; `rows` are their examples."""
    blocks = _deal_blocks(deals_of(redeals, rows))
    return _p(np.concatenate([areas(scores, coins) for coins in blocks]), redeals)


def areas(scores: FloatArray, coins: FloatArray) -> FloatArray:
    """The AUC (P,) of the same scores (R, n) under each of P deals of the coins (P, R, n), as `roc.auc` has it.

    Rank sums are sums over coins, so that scores are ranked once. NaN as there.

    >>> areas(np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 1.0]]])).tolist()
    [0.875, 0.125]
    """
    is_measured = ~np.isnan(scores)
    weights = is_measured.astype(np.float64)
    rank_gaps = np.where(is_measured, _ranks(scores.reshape(-1, 1)).reshape(scores.shape) - _ranks(scores), 0.0)
    inside = np.einsum("prm,rm->pm", coins, weights)
    n = inside.sum(1)
    won = np.einsum("prm,rm->p", coins, rank_gaps) - n * (n + 1) / 2 + (inside * (inside + 1) / 2).sum(1)
    pairs = n * (is_measured.sum() - n) - (inside * (is_measured.sum(0) - inside)).sum(1)
    return np.asarray(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan))


def _ranks(scores: FloatArray) -> FloatArray:
    """(R, n) the rank of each score in its column, from 1 on, ties at their middle; NaN comes last."""
    order = np.argsort(scores, axis=0)
    ordered = np.take_along_axis(scores, order, axis=0)
    places = np.broadcast_to(np.arange(1.0, len(scores) + 1)[:, None], scores.shape)
    equal = ordered[1:] == ordered[:-1]
    if equal.any():
        places = places.copy()
        for column in np.flatnonzero(equal.any(0)).tolist():
            starts = np.concatenate([[0], np.flatnonzero(~equal[:, column]) + 1, [len(scores)]])
            sizes = np.diff(starts)
            places[:, column] = np.repeat(starts[:-1] + (sizes + 1) / 2, sizes)
    ranks = np.empty(scores.shape)
    np.put_along_axis(ranks, order, places, axis=0)
    return ranks


def of_statistic(
    statistic: Callable[[BoolArray], float], rows: IntArray, redeals: CoinPermutations, limit: int
) -> FloatArray:
    """(≤ limit,) values of a statistic of the coins (R, n) of some examples, under all deals or the first ones.

    For statistics that are computed again for each deal, such as an attack that reads coins.
    """
    return np.array([statistic(coins) for coins in deals_of(redeals, rows, limit)])


def deals_of(redeals: CoinPermutations, rows: IntArray, limit: int | None = None) -> BoolArray:
    """(P + 1, R, n) deals of some examples, the coins as they fell first: all that there are, or at most `limit` drawn.

    >>> column = np.array([[True], [True], [False], [False]])
    >>> drawn = CoinPermutations(coins=np.broadcast_to(column, (8, 4, 1)), shuffles=np.zeros((0, 4), np.int64))
    >>> deals_of(drawn, np.array([0])).shape, deals_of(drawn, np.array([0]), limit=5).shape
    ((6, 4, 1), (5, 4, 1))
    """
    coins = redeals.coins[:limit]
    if not 2 <= _num_ways(redeals, rows) <= min(len(coins), len(redeals.coins) - 1):
        return coins[:, :, rows]
    actual, (coin_row, first) = redeals.coins[0][:, rows], _coin_rows(redeals)
    runs = len(first)
    group, of_group = _groups(redeals.coin_group, rows)
    columns = [
        [np.isin(np.arange(runs), chosen) for chosen in combinations(range(runs), int(column.sum()))]
        for column in actual[np.ix_(first, of_group)].T
    ]
    every = np.array([np.stack(deal, axis=1) for deal in product(*columns)])[:, coin_row][:, :, group]
    is_actual = (every == actual).all((1, 2))
    return np.concatenate([every[is_actual], every[~is_actual]])


def num_redeals(redeals: CoinPermutations, rows: IntArray) -> int:
    """P, the number of deals besides the coins as they fell, that p of these examples is from."""
    ways = _num_ways(redeals, rows)
    return (ways if 2 <= ways < len(redeals.coins) else len(redeals.coins)) - 1


def _num_ways(redeals: CoinPermutations, rows: IntArray) -> int:
    """In how many equally likely ways the coins of these examples could have fallen; 0 where runs have rates."""
    if redeals.has_rates:
        return 0
    (_, first), (_, of_group) = _coin_rows(redeals), _groups(redeals.coin_group, rows)
    of_rows = redeals.coins[0][np.ix_(first, rows[of_group])]
    return math.prod(math.comb(len(first), num_in) for num_in in of_rows.sum(0).tolist())


def _coin_rows(redeals: CoinPermutations) -> tuple[IntArray, IntArray]:
    """(R,) the coin row of each run, and (G,) the first run of each coin row."""
    runs = np.arange(redeals.coins.shape[1])
    if redeals.coin_row is None:
        return runs, runs
    _, first, coin_row = np.unique(redeals.coin_row, return_index=True, return_inverse=True)
    return coin_row.reshape(-1), first


def _groups(coin_group: IntArray | None, rows: IntArray) -> tuple[IntArray, IntArray]:
    """(n,) the coin group of each of these examples, from 0 on, and (G,) the place of the first example of each."""
    places = np.arange(len(rows))
    if coin_group is None:
        return places, places
    _, first, group = np.unique(coin_group[rows], return_index=True, return_inverse=True)
    return group.reshape(-1), first


def _deal_blocks(deals: BoolArray) -> Iterator[FloatArray]:
    """All deals of some examples as numbers (p, R, n), not too many at once."""
    step = max(1, _PART // max(deals.shape[1] * deals.shape[2], 1))
    for start in range(0, len(deals), step):
        yield deals[start : start + step].astype(np.float64)


def _p(statistics: FloatArray, redeals: CoinPermutations) -> float:
    """`two_sided`, but NaN where no deal can change a coin: there are none, or there is a single run."""
    return two_sided(statistics) if min(len(statistics), len(_coin_rows(redeals)[1])) > 1 else float("nan")
