"""Is a single example memorised? An exact p for each, adjusted for looking at many, and intervals for the selected.

The hypothesis about example j: training on it changes nothing about what models say about it. Only its coin decided in
which runs it was in. Given the values of all runs, its coin is then one of all ways to choose that many runs, each
equally likely. The p is the share of these ways whose sum of ranks over in runs is at least as high. It is one-sided,
since memorisation is a higher value. Coins of different examples are independent, so that under the hypothesis about
all examples their p are independent too.

With one run there is no p from coins. With one model that trained on a canary and ranks it, the p of the canary is that
of its rank. A canary without memorisation is as likely at one rank among its references as at any other. That holds for
examples that are drawn as their references are, and not for secrets that people wrote. These have no p without random
inclusion.

`fedmem top` and the section SINGLE EXAMPLES of a report both take their p from here.

The largest of many noisy scores are too high on average. Two remedies go together:

- p are adjusted by Benjamini and Hochberg (1995): of the marked examples, a share of 5 % at most is expected to be
  marked wrongly. Where no example is memorised, the probability that any is marked is at most 5 %.
  With examples that are in or out together, p depend on each other in any way. All p are then multiplied by a further
  Σ 1/i over the m examples, with which the same holds (Benjamini and Yekutieli, 2001);
- the intervals of n examples that were picked among m have the level 1 − 0.05 n/m (Benjamini and Yekutieli, 2005). Of
  the intervals that are shown, a share of 5 % at most is expected to miss its value. With examples that are in or out
  together, 0.05 is divided by the same sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.two_way import FEWEST

RATE = 0.05
"""The false discovery rate of marks, and the false coverage rate of intervals."""

_EXACT = 64
"""The most runs for which all ways to choose the in runs are counted; of more the normal limit is taken."""


def upper_p(values: FloatArray, is_in: BoolArray) -> FloatArray:
    """(m,) exact one-sided p that the values (R, m) of in runs are higher; NaN values do not count.

    Ties have mid-ranks, so that for values 0 and 1 it is Fisher's exact test. Above 64 runs the normal limit with the
    variance of ties and a correction for continuity. NaN where an example has no in run or no out run.

    >>> values = np.array([[1.0, 0.5], [1.0, 0.5], [0.0, 0.5], [0.0, 0.5]])
    >>> coins = np.array([[True, True], [True, False], [False, True], [False, False]])
    >>> upper_p(values, coins).round(3).tolist()  # the first: 1 of 6 ways
    [0.167, 1.0]
    """
    p = np.full(values.shape[1], math.nan)
    for example in range(values.shape[1]):
        measured = ~np.isnan(values[:, example])
        column, coins = values[measured, example], is_in[measured, example]
        num_in = int(coins.sum())
        if 0 < num_in < len(coins):
            ranks = _double_ranks(column)
            p[example] = _upper_tail(tuple(sorted(ranks.tolist())), num_in, int(ranks[coins].sum()))
    return p


def p_of_few(values: FloatArray, is_in: BoolArray, rows: IntArray) -> FloatArray | None:
    """`upper_p` of each of these examples, (n,); None for as many examples as have an interval together."""
    return upper_p(values[:, rows], is_in[:, rows]) if len(rows) < FEWEST else None


def p_of_rank(less: NDArray[np.int32] | IntArray, ties: NDArray[np.int32] | IntArray, references: int) -> FloatArray:
    """One-sided p of ranks among N references: (1 + less + ties) / (N + 1), references with smaller and equal loss.

    Valid with ties, which all count against memorisation, and exact without.

    >>> p_of_rank(np.array([0, 511, 0]), np.array([0, 0, 3]), 1023).round(6).tolist()
    [0.000977, 0.5, 0.003906]
    """
    return np.asarray((1.0 + less + ties) / (references + 1.0))


def smallest_p(is_in: BoolArray) -> float:
    """The floor of `upper_p` for coins (R, m): 1 / C(R, in runs), the smallest of all examples; NaN with a single run.

    >>> round(smallest_p(np.array([[True], [True], [False], [False]])), 3)  # C(4, 2) = 6
    0.167
    """
    runs, ins = len(is_in), set(is_in.sum(0).tolist())
    return min((1 / math.comb(runs, count) for count in ins if 0 < count < runs), default=math.nan)


def _double_ranks(values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(R,) twice the mid-rank of each value: whole numbers, also with ties."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((2 * last - counts + 1)[place], dtype=np.int64)


def _upper_tail(ranks: tuple[int, ...], num_in: int, total: int) -> float:
    """The share of ways to choose `num_in` of these whose sum is at least `total`."""
    if len(ranks) > _EXACT:
        return _normal_tail(np.array(ranks, dtype=np.float64), num_in, total)
    return float(_tails(ranks, num_in)[total])


@lru_cache(maxsize=256)
def _tails(ranks: tuple[int, ...], num_in: int) -> FloatArray:
    """The share of ways to choose `num_in` of these whose sum is at least s, for each s from 0 to the sum of all."""
    whole = sum(ranks)
    # how many sets of c of the ranks so far have the sum s
    ways = np.zeros((num_in + 1, whole + 1))
    ways[0, 0] = 1.0
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : whole + 1 - rank]
    tail = np.cumsum(ways[num_in][::-1])[::-1]
    return np.asarray(tail / tail[0])


def _normal_tail(ranks: FloatArray, num_in: int, total: int) -> float:
    from scipy.special import ndtr

    size = len(ranks)
    variance = num_in * (size - num_in) / size * float(ranks.var(ddof=1))
    away = total - num_in * float(ranks.mean())
    # half of the step from one possible sum to the next
    half_step = float(np.gcd.reduce((ranks - ranks[0]).astype(np.int64))) / 2
    return float(ndtr(-(away - half_step) / math.sqrt(variance))) if variance > 0 else 1.0


def adjust(p: FloatArray, *, dependent: bool = False) -> FloatArray:
    """(m,) p adjusted by Benjamini and Hochberg: at most `RATE` is significant. NaN does not count and stays.

    With `dependent`, by Benjamini and Yekutieli (2001), for p that depend on each other in any way.

    >>> adjust(np.array([0.01, 0.04, math.nan, 0.5])).round(3).tolist()
    [0.03, 0.06, nan, 0.5]
    >>> adjust(np.array([0.01, 0.04, math.nan, 0.5]), dependent=True).round(3).tolist()  # 1 + 1/2 + 1/3 times as large
    [0.055, 0.11, nan, 0.917]
    """
    from scipy.stats import false_discovery_control

    adjusted, known = np.full(len(p), math.nan), ~np.isnan(p)
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="by" if dependent else "bh")
    return adjusted


def level_of_selected(selected: int, candidates: int, *, dependent: bool = False) -> float:
    """The level of the intervals of examples that were picked among candidates by their values.

    `dependent` says whether examples are in or out together.

    >>> level_of_selected(10, 500), level_of_selected(3, 3)
    (0.999, 0.95)
    """
    total = max(candidates, selected, 1)
    return 1 - RATE * selected / total / (float(np.sum(1 / np.arange(1, total + 1))) if dependent else 1.0)


def competition_ranks(values: Sequence[float]) -> list[int]:
    """The ranks of values from the highest down; equal values, up to rounding, share the best of their ranks.

    >>> competition_ranks([0.9, 0.5, 0.5, 0.1])
    [1, 2, 2, 4]
    """
    ranks: list[int] = []
    for place, value in enumerate(values):
        is_tied = place > 0 and abs(values[place - 1] - value) <= 1e-12 * max(1.0, abs(value))
        ranks.append(ranks[-1] if is_tied else place + 1)
    return ranks
