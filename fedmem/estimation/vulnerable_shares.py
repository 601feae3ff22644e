"""Which share of vulnerable examples is not memorised, and the other way round, without counting chance.

In each direction of a halving, half A selects and half B counts. Example j is vulnerable in B if the AUC over the runs
of B, by an attack that knows A, reaches a threshold. It is memorised in B if its memorisation from B does. Many
examples are so by chance. For coins of B that are dealt again, with the outputs of models as they are, chance gives
the shares P_j and Q_j. The *excess* of j is

    (1{j vulnerable in B} − P_j) / (1 − P_j), and the same with memorised and Q_j.

It is 1 for an example that always reaches the threshold. Without an effect on j, its expectation given A is 0, and so
is that of its sum over any examples that A selects. Excesses are averaged over directions, example by example. A share
is a ratio of their sums.

Whether j is vulnerable in A is judged from A alone, which is split again into shadows and targets. An attack on A that
knows B would not do: B would then decide both what is counted and what is selected.

A also selects by noise: it misses examples that are near a threshold. The ratio with one criterion on both sides, as
memorised in B and not in A, shows how many. If the same examples are vulnerable and memorised, and both are found
equally reliably, the difference of the two ratios is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.estimation.attack_success import HeldOutScores, auc_by_example, ranks_by_example
from fedmem.estimation.statistics import mean

DEALS = 200
"""Deals of the coins of a half that give the shares of chance."""

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Direction:
    """One half as targets, and the other as shadows.

    `targets` (T,) are the runs of half B, and `rows` (T,) their coin rows, equal for twins. Of the n examples,
    `scores` and `is_in` (T, n) are those of these runs, and `success` (n,) the AUC of each.
    """

    targets: IntArray
    rows: IntArray
    scores: FloatArray
    is_in: BoolArray
    success: FloatArray


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The smallest AUC of a vulnerable example, and the smallest memorisation of a memorised one."""

    vulnerable: float
    memorised: float


@dataclass(frozen=True, kw_only=True)
class Excesses:
    """The part of each example (n,) in four counts and in their two controls, beyond chance.

    Attributes:
        vulnerable: Vulnerable in half B.
        memorised: Memorised in half B.
        vulnerable_only: Vulnerable in B, and not memorised in A.
        memorised_only: Memorised in B, and not vulnerable in A.
        memorised_missed: Memorised in B, and not memorised in A.
        vulnerable_missed: Vulnerable in B, and not vulnerable in A.
    """

    vulnerable: FloatArray
    memorised: FloatArray
    vulnerable_only: FloatArray
    memorised_only: FloatArray
    memorised_missed: FloatArray
    vulnerable_missed: FloatArray


def directions(scorer: HeldOutScores, first: BoolArray) -> list[tuple[Direction, Direction]]:
    """Both directions of each halving; `first` (H, R) are the runs of half A."""
    pairs = []
    for half in first:
        runs = np.flatnonzero(~half), np.flatnonzero(half)
        pairs.append((_direction(scorer, *runs), _direction(scorer, *runs[::-1])))
    return pairs


def _direction(scorer: HeldOutScores, targets: IntArray, shadows: IntArray) -> Direction:
    scores, is_in = scorer.score(targets, shadows), scorer.is_in[targets]
    return Direction(
        targets=targets, rows=scorer.rows[targets], scores=scores, is_in=is_in, success=auc_by_example(scores, is_in)
    )


def excesses(
    pairs: Sequence[tuple[Direction, Direction]],
    within: FloatArray,
    probability: FloatArray,
    thresholds: Thresholds,
    rng: np.random.Generator,
) -> Excesses:
    """The excesses of n examples, NaN where nothing is known.

    Args:
        pairs: Both directions of H halvings.
        within: (2, H, n) the success from the first half of each halving alone, and from the other alone.
        probability: (R, n) the probability of the label.
        thresholds: From which size an example is vulnerable or memorised.
        rng: Deals coins.
    """
    # twins have equal keys, so that their coins stay equal
    keys = rng.random((DEALS, 1 + max(int(one.rows.max()) for pair in pairs for one in pair), probability.shape[1]))
    parts: dict[str, list[FloatArray]] = {}
    for number, pair in enumerate(pairs):
        vulnerable = [
            _excess(_Aucs(one.scores), one.is_in, thresholds.vulnerable, keys[:, one.rows])[1] for one in pair
        ]
        memorised = [
            _excess(_Gaps(probability[one.targets]), one.is_in, thresholds.memorised, keys[:, one.rows]) for one in pair
        ]
        for here, there in ((0, 1), (1, 0)):
            # the targets of one direction are the shadows of the other
            counted = {"vulnerable": vulnerable[here], "memorised": memorised[here][1]}
            missed = {
                "vulnerable": _below(within[here, number], thresholds.vulnerable),
                "memorised": 1.0 - memorised[there][0],
            }
            for name, what, selected in _COUNTS:
                factor = missed[selected] if selected else 1.0
                parts.setdefault(name, []).append(factor * counted[what])
    return Excesses(**{name: mean(np.stack(values), axis=0) for name, values in parts.items()})


_COUNTS = (
    ("vulnerable", "vulnerable", ""),
    ("memorised", "memorised", ""),
    ("vulnerable_only", "vulnerable", "memorised"),
    ("memorised_only", "memorised", "vulnerable"),
    ("memorised_missed", "memorised", "memorised"),
    ("vulnerable_missed", "vulnerable", "vulnerable"),
)
"""The fields of `Excesses`: what is counted in half B, and what half A does not find."""


def _below(values: FloatArray, threshold: float) -> FloatArray:
    """1 where a value is below the threshold, 0 where it reaches it; NaN stays."""
    return np.where(np.isnan(values), np.nan, values < threshold - _ROUNDING)


@dataclass(frozen=True)
class _Aucs:
    """The AUC of each example, as a function of coins."""

    scores: FloatArray

    def of(self, coins: FloatArray, num_in: IntArray, num_out: IntArray) -> FloatArray:
        """(D, n) for coins (D, T, n)."""
        sums = np.einsum("dtn,tn->dn", coins, ranks_by_example(self.scores))
        return np.asarray((sums - num_in * (num_in + 1) / 2) / np.maximum(num_in * num_out, 1))


@dataclass(frozen=True)
class _Gaps:
    """The mean over in runs minus the mean over out runs of each example, as a function of coins."""

    scores: FloatArray

    def of(self, coins: FloatArray, num_in: IntArray, num_out: IntArray) -> FloatArray:
        """(D, n) for coins (D, T, n)."""
        filled = np.nan_to_num(self.scores)
        sums = np.einsum("dtn,tn->dn", coins, filled)
        return np.asarray(sums / np.maximum(num_in, 1) - (filled.sum(0) - sums) / np.maximum(num_out, 1))


def _excess(
    statistic: _Aucs | _Gaps, is_in: BoolArray, threshold: float, keys: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(n,) each: 1 where the statistic reaches the threshold, and the excess of that; NaN where nothing is known."""
    is_scored = ~np.isnan(statistic.scores)
    ins = is_in & is_scored
    num_in, num_out = ins.sum(0), (~is_in & is_scored).sum(0)
    order = np.where(is_scored, keys, np.inf).argsort(axis=1, kind="stable")
    dealt = order.argsort(axis=1) < num_in
    reached, by_redeals = (
        (statistic.of(coins.astype(np.float64), num_in, num_out) >= threshold - _ROUNDING).mean(0)
        for coins in (ins[None], dealt)
    )
    is_known = (num_in > 0) & (num_out > 0) & (by_redeals < 1)
    excess = (reached - by_redeals) / np.where(by_redeals < 1, 1 - by_redeals, 1.0)
    return np.where(is_known, reached, np.nan), np.where(is_known, excess, np.nan)


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its interval, its draws (B,), and how many examples its denominator counts."""

    value: float
    low: float
    high: float
    of_draws: FloatArray
    count: int


def share(part: FloatArray, whole: FloatArray | None, weights: FloatArray) -> Share:
    """Σ part / Σ whole over examples (n,), or / n without `whole`, with draws of weights (n, B).

    Undefined where the interval of Σ whole reaches 0: there may be nothing to take a share of.

    >>> ones, weights = np.ones(9), np.ones((9, 5))
    >>> share(ones / 4, ones, weights).value, share(ones, -ones, weights).value
    (0.25, nan)
    """
    whole = np.ones(len(part)) if whole is None else whole
    is_known = ~np.isnan(part + whole)
    part, whole, weights = part[is_known], whole[is_known], weights[is_known]
    draws, wholes = part @ weights, whole @ weights
    if not len(part) or not min(np.quantile(wholes, 0.025), whole.sum()) > 0:
        nothing = np.full(weights.shape[1], math.nan)
        return Share(value=math.nan, low=math.nan, high=math.nan, of_draws=nothing, count=0)
    value = float(part.sum() / whole.sum())
    of_draws = np.divide(draws, wholes, out=np.full(len(draws), np.nan), where=wholes > 0)
    return _with_interval(value, of_draws, round(float(whole.sum())))


def excess_of(one: Share, other: Share) -> Share:
    """The first share minus the second, from the same draws."""
    return _with_interval(one.value - other.value, one.of_draws - other.of_draws, one.count)


def _with_interval(value: float, of_draws: FloatArray, count: int) -> Share:
    if math.isnan(value) or np.isnan(of_draws).mean() > 0.2 or np.nanmax(of_draws) - np.nanmin(of_draws) < _ROUNDING:
        return Share(value=value, low=math.nan, high=math.nan, of_draws=of_draws, count=count)
    low, high = np.nanquantile(of_draws, [0.025, 0.975]).tolist()
    return Share(value=value, low=min(low, value), high=max(high, value), of_draws=of_draws, count=count)
