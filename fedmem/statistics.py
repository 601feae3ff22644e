"""Intervals, resampling and rank statistics: numpy in, numpy out, no project type but the resampling itself.

Wherever there are B weightings, the sample itself is the weighting of ones: `weightings` puts it in front, so that one
formula gives the value (row 0) and its replicates (rows 1 to B).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fedmem.types import AuditSet, BoolArray, FloatArray, IntArray, Resampling

FEWEST = 8
"""Runs, and examples of a kind, from which on a bootstrap interval holds its level (it covered .92 of the nominal .95
at eight runs, .5 to .8 at two): with fewer a value stands without an interval."""

_SHUFFLES = 200
"""Permutations of the runs that go with a resampling."""

_COLUMNS = 32
"""Weightings handled at once by `auc`: their cumulated weights should stay in cache."""


def resampling(audit: AuditSet, draws: int, rng: np.random.Generator) -> Resampling:
    """B draws of a two-way cluster bootstrap: R runs, and apart from them the examples of each kind, with replacement.

    Runs share one initial model and one roster, examples of a run share its training, so both are clusters and a value
    of run r and example j has the weight `runs[b, r] * examples[b, j]` (the pigeonhole bootstrap of Owen, 2007).
    Multiplicities (B, R) and (B, m) sum to R, and to the size of each kind. With one run only examples are resampled.

    - about right for an effect of runs or of examples, if there are not too few of them (`FEWEST`); too wide, up to a
      factor of √3, where all noise is private to each pair of run and example (McCullagh, 2000).
    """
    runs = rng.multinomial(audit.runs, np.full(audit.runs, 1 / audit.runs), size=draws).astype(np.float64)
    examples = np.zeros((draws, len(audit)))
    for kind in audit.kinds:
        columns = np.flatnonzero(audit.kind == kind)
        examples[:, columns] = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=draws)
    shuffles = rng.permuted(np.tile(np.arange(audit.runs), (_SHUFFLES, 1)), axis=1)
    return Resampling(runs=runs, examples=examples, shuffles=shuffles)


def weightings(sample: Resampling) -> tuple[FloatArray, FloatArray]:
    """The sample itself and its B draws: run weights (B + 1, R) and example weights (B + 1, m), row 0 all ones."""
    runs = np.vstack([np.ones((1, sample.runs.shape[1])), sample.runs])
    return runs, np.vstack([np.ones((1, sample.examples.shape[1])), sample.examples])


def interval(replicates: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """The central percentile interval; NaN replicates do not count, and with no other it is (NaN, NaN).

    >>> interval(np.arange(101.0), level=0.5)
    (25.0, 75.0)
    >>> interval(np.array([np.nan, 2.0]))
    (2.0, 2.0)
    """
    usable = replicates[~np.isnan(replicates)]
    if not len(usable):
        return math.nan, math.nan
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def cluster_interval(replicates: FloatArray, clusters: int, level: float = 0.95) -> tuple[float, float]:
    """`interval`, or (NaN, NaN) where a bootstrap knows nothing: too few clusters, or draws that are all the same.

    `clusters` is the smaller of the numbers of runs and of examples that were resampled. Equal draws, as when every
    example was predicted rightly in every run, have no spread, but are no certainty either.

    >>> cluster_interval(np.arange(101.0), clusters=7), cluster_interval(np.full(50, 0.5), clusters=40)
    ((nan, nan), (nan, nan))
    """
    low, high = interval(replicates, level)
    usable = replicates[~np.isnan(replicates)]
    if clusters < FEWEST or (len(usable) and np.all(usable == usable[0])):
        return math.nan, math.nan
    return low, high


def mean(values: FloatArray, axis: int) -> FloatArray:
    """The mean over what is not NaN; NaN, silently, where nothing is left.

    >>> mean(np.array([[1.0, np.nan], [3.0, np.nan]]), axis=0).tolist()
    [2.0, nan]
    """
    seen = ~np.isnan(values)
    return _ratio(np.where(seen, values, 0.0).sum(axis), seen.sum(axis))


def means_by_coin(values: FloatArray, is_in: BoolArray, runs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means of `values` (R, m) over the in and over the out runs of each example, for each weighting: two (B, m).

    NaN values do not count; an example that a weighting shows in no in (or out) run is NaN there.
    """
    seen = ~np.isnan(values)
    # Measured from the first value seen, the means of equal values are equal to the last bit, whatever the weights.
    first = values[seen.argmax(0), np.arange(values.shape[1])]
    both = []
    for coin in (is_in & seen, ~is_in & seen):
        both.append(first + _ratio(runs @ np.where(coin, values - first, 0.0), runs @ coin.astype(np.float64)))
    return both[0], both[1]


def mean_over_examples(values: FloatArray, examples: FloatArray) -> FloatArray:
    """The mean over examples of `values` (B, n) under the weights `examples` (B, n); NaN values do not count."""
    weights = np.where(np.isnan(values), 0.0, examples)
    return _ratio((weights * np.where(np.isnan(values), 0.0, values)).sum(1), weights.sum(1))


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Wilson's score interval of a proportion, elementwise; (0, 1) where there was no trial.

    >>> low, high = wilson(0, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.0, 0.278)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    z = _normal_quantile((1 + level) / 2)
    share = np.where(n > 0, k / np.maximum(n, 1), 0.5)
    middle = (n * share + z * z / 2) / (n + z * z)
    half = z * np.sqrt(n * share * (1 - share) + z * z / 4) / (n + z * z)
    return np.clip(middle - half, 0.0, 1.0), np.clip(middle + half, 0.0, 1.0)


def newcombe(
    successes: ArrayLike,
    trials: ArrayLike,
    control_successes: ArrayLike,
    control_trials: ArrayLike,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Interval of a difference of two independent proportions, elementwise (Newcombe, 1998, method 10).

    Keeps its level near 0 and 1 and for few trials. Where one side has no trial the difference is unknown: (-1, 1).

    >>> low, high = newcombe(56, 70, 48, 80)  # the example of the paper
    >>> round(float(low), 4), round(float(high), 4)
    (0.0524, 0.3339)
    """
    k1, n1, k2, n2 = (np.asarray(x, np.float64) for x in (successes, trials, control_successes, control_trials))
    (low1, high1), (low2, high2) = wilson(k1, n1, level), wilson(k2, n2, level)
    share1, share2 = k1 / np.maximum(n1, 1), k2 / np.maximum(n2, 1)
    known, between = (n1 > 0) & (n2 > 0), share1 - share2
    low = between - np.hypot(share1 - low1, high2 - share2)
    high = between + np.hypot(high1 - share1, share2 - low2)
    return np.where(known, low, -1.0), np.where(known, high, 1.0)


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a proportion, never below its level (Clopper and Pearson, 1934); (0, 1) without trials.

    >>> low, high = clopper_pearson(0, 10)
    >>> low, round(high, 4)
    (0.0, 0.3085)
    """
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def student(values: FloatArray, others: FloatArray, level: float = 0.95) -> tuple[float, float, float]:
    """Difference of two means and its interval by Welch's t: (difference, low, high); NaN values do not count.

    Unequal variances are allowed (Welch, 1947). Without a value on one side the difference is NaN; with a single one
    on a side, or without any spread on either, there is no interval: values that are all alike are no certainty.

    >>> [round(end, 3) for end in student(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))]
    [1.0, -1.267, 3.267]
    """
    sides = [side[~np.isnan(side)] for side in (values, others)]
    sizes = [len(side) for side in sides]
    if not min(sizes):
        return math.nan, math.nan, math.nan
    gap = float(sides[0].mean() - sides[1].mean())
    if min(sizes) < 2:
        return gap, math.nan, math.nan
    if not any(np.ptp(side) for side in sides):
        return gap, math.nan, math.nan
    parts = [float(side.var(ddof=1)) / len(side) for side in sides]
    from scipy.special import stdtrit

    freedom = sum(parts) ** 2 / sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(sum(parts))
    return gap, gap - half, gap + half


def jackknife(value: float, without: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a value from what it would be without each of G clusters, with G − 1 degrees of freedom.

    The variance is (G − 1)/G × Σ (without − their mean)² (Tukey, 1958); of a mean over clusters it is the usual one.
    (NaN, NaN) with fewer than two clusters, where any of these is NaN, and where all are the same but for rounding.

    >>> values = np.array([1.0, 2.0, 3.0])
    >>> [round(end, 3) for end in jackknife(2.0, (values.sum() - values) / 2)]
    [-0.484, 4.484]
    """
    groups = len(without)
    if groups < 2 or np.isnan(without).any() or np.ptp(without) <= 1e-12 * np.abs(without).max():
        return math.nan, math.nan
    from scipy.special import stdtrit

    variance = (groups - 1) / groups * float(np.square(without - without.mean()).sum())
    half = float(stdtrit(groups - 1, (1 + level) / 2)) * math.sqrt(variance)
    return value - half, value + half


def fisher_exact(total: int, chosen: int) -> FloatArray:
    """Two-sided p of Fisher's exact test for every table: (total + 1, chosen + 1).

    Of `total` runs `chosen` are in; entry [k, x] belongs to k successes, x of them in. It is the share of all ways to
    choose the runs that give a table as improbable or more so: exact where coins were dealt, whatever the outcomes.

    >>> fisher_exact(8, 4)[4, 4].round(4).item()  # 2 of 70 ways
    0.0286
    """
    from scipy.stats import hypergeom

    successes, inside = np.arange(total + 1)[:, None], np.arange(chosen + 1)[None]
    mass = np.asarray(hypergeom.pmf(inside, total, successes, chosen))
    as_rare = mass[:, None, :] <= mass[:, :, None] * (1 + 1e-9)
    return np.asarray(np.where(as_rare, mass[:, None, :], 0.0).sum(2)).clip(max=1.0)


def rank_sum_exact(total: int, chosen: int) -> FloatArray:
    """Two-sided p of the rank sum test (Wilcoxon, 1945) for each value of U, from 0 to chosen × (total − chosen).

    U counts the pairs in which the run that is in is above the run that is out. The share of all ways to choose the
    runs that are as far from the middle, by counting; normal with the exact variance above 200 runs.

    >>> rank_sum_exact(4, 2).round(3).tolist()
    [0.333, 0.667, 1.0, 0.667, 0.333]
    """
    pairs = chosen * (total - chosen)
    if total > 200:
        from scipy.special import ndtr

        away = np.abs(np.arange(pairs + 1) - pairs / 2)
        return np.asarray(2 * ndtr(-(away - 0.5) / math.sqrt(pairs * (total + 1) / 12))).clip(max=1.0)
    # ways[c, s]: how many sets of c ranks have the sum s
    ways = np.zeros((chosen + 1, total * (total + 1) // 2 + 1))
    ways[0, 0] = 1.0
    for rank in range(1, total + 1):
        ways[1:, rank:] = ways[1:, rank:] + ways[:-1, :-rank]
    least = chosen * (chosen + 1) // 2
    mass = ways[chosen, least : least + pairs + 1] / math.comb(total, chosen)
    tail = np.cumsum(mass)
    return np.asarray(2 * np.minimum(tail, tail[::-1])).clip(max=1.0)


def benjamini_hochberg(p: FloatArray, rate: float) -> BoolArray:
    """Which of these hypotheses are rejected so that at most a share `rate` of the rejections is expected to be wrong.

    Rejects the k smallest p for the largest k with p_(k) <= rate × k / n (Benjamini and Hochberg, 1995), which holds
    its rate under independence and positive dependence. NaN is never rejected and does not count.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.5, 0.02]), 0.05).tolist()
    [True, False, False, True]
    """
    known = ~np.isnan(p)
    ordered = np.sort(p[known])
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(ordered) + 1) / max(len(ordered), 1))
    return known & (p <= (ordered[below[-1]] if len(below) else -1.0))


def smallest_fpr(n_out: int) -> float:
    """The smallest false positive rate worth a true positive rate: ten false positives. NaN with fewer than ten outs.

    >>> smallest_fpr(1280), smallest_fpr(9)
    (0.0078125, nan)
    """
    return 10 / n_out if n_out >= 10 else math.nan


def null_tpr(n_out: float) -> float:
    """The true positive rate that guessing has at `smallest_fpr`: the eleventh highest of the outs is the threshold.

    >>> null_tpr(21)
    0.5
    """
    return 11 / (n_out + 1)


def auc(scores: FloatArray, is_in: BoolArray, runs: FloatArray, examples: FloatArray) -> FloatArray:
    """Probability that a member scores above a non-member, ties counted half, for each of B weightings: (B,).

    `scores` (R, m), NaN left out; `is_in` (R, m); a score weighs `runs[b, r] * examples[b, j]`. Members are compared
    with the non-members of all runs, but only with those that are other examples: an example against itself in another
    run is another question, whose answer would enter with weight 1/m, and twice that under the bootstrap, which draws
    examples twice. One sort serves every weighting.

    - exact: equals the weighted share of concordant pairs;
    - NaN where a weighting leaves no member, no non-member, or only pairs of an example with itself.

    >>> scores, is_in = np.array([[0.9, 0.5, 0.5, 0.1]]), np.array([[True, True, False, False]])
    >>> auc(scores, is_in, np.ones((1, 1)), np.ones((1, 4))).tolist()
    [0.875]
    """
    inside, outside = _sorted(scores, is_in), _sorted(scores, ~is_in)
    first = np.searchsorted(outside.score, inside.score, "left")
    last = np.searchsorted(outside.score, inside.score, "right")
    tied = not np.array_equal(first, last)
    same = _SamePairs.of(scores, is_in)
    value = np.empty(len(runs))
    for start in range(0, len(runs), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        by_run, by_example = np.ascontiguousarray(runs[part].T), np.ascontiguousarray(examples[part].T)
        below = np.zeros((len(outside.score) + 1, by_run.shape[1]))
        np.cumsum(outside.weights(by_run, by_example), axis=0, out=below[1:])
        members = inside.weights(by_run, by_example)
        beaten = 0.5 * (below[first] + below[last]) if tied else below[first]
        won, met = same.weights(by_run, by_example)
        pairs = members.sum(0) * below[-1] - met
        # What is left of the pairs after a subtraction is nothing if it is nothing but rounding.
        pairs = np.where(pairs > 1e-9 * (pairs + met), pairs, 0.0)
        value[part] = _ratio(np.einsum("nb,nb->b", members, beaten) - won, pairs)
    return np.clip(value, 0.0, 1.0)


@dataclass(frozen=True)
class _SamePairs:
    """For every example its in runs against its out runs: `ins`, `outs` (m, W) runs, `won` (m, W, W) pairs won."""

    ins: IntArray
    outs: IntArray
    counted: FloatArray
    won: FloatArray

    @staticmethod
    def of(scores: FloatArray, is_in: BoolArray) -> _SamePairs:
        """Rows are padded to the largest number of runs on one side; `counted` (m, W, W) is 0 in the padding."""
        seen = ~np.isnan(scores)
        sides = []
        for chosen in (is_in & seen, ~is_in & seen):
            width = int(chosen.sum(0).max(initial=0))
            order = np.argsort(~chosen, axis=0, kind="stable")[:width].T
            sides.append((order, np.take_along_axis(chosen.T, order, axis=1)))
        (ins, are_in), (outs, are_out) = sides
        table = scores.T
        member = np.take_along_axis(table, ins, axis=1)[:, :, None]
        other = np.take_along_axis(table, outs, axis=1)[:, None, :]
        counted = (are_in[:, :, None] & are_out[:, None, :]).astype(np.float64)
        return _SamePairs(ins, outs, counted, counted * ((member > other) + 0.5 * (member == other)))

    def weights(self, by_run: FloatArray, by_example: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weight of the pairs won and of all pairs, for each of B weightings: two (B,)."""
        left, right = by_run[self.ins].transpose(0, 2, 1), by_run[self.outs].transpose(0, 2, 1)
        twice = by_example**2
        return tuple(np.einsum("mb,mbo,mbo->b", twice, left @ part, right) for part in (self.won, self.counted))


def tpr(scores: FloatArray, is_in: BoolArray, runs: FloatArray, examples: FloatArray, fpr: float) -> FloatArray:
    """Share of members above the lowest threshold whose false positive rate is at most `fpr`, per weighting: (B,).

    Arguments as for `auc`. Conservative: equal scores are accepted or refused together, so the realised false positive
    rate never exceeds `fpr`, and with all scores equal the answer is 0 (for fpr < 1).

    >>> scores, is_in = np.array([[4.0, 2.0, 3.0, 1.0]]), np.array([[True, True, False, False]])
    >>> [tpr(scores, is_in, np.ones((1, 1)), np.ones((1, 4)), fpr).item() for fpr in (0.4, 0.5, 1.0)]
    [0.5, 1.0, 1.0]
    """
    inside, outside = _sorted(scores, is_in).reversed(), _sorted(scores, ~is_in).reversed()
    by_run, by_example = np.ascontiguousarray(runs.T), np.ascontiguousarray(examples.T)
    all_in = ((runs @ (is_in & ~np.isnan(scores))) * examples).sum(1)
    all_out = ((runs @ (~is_in & ~np.isnan(scores))) * examples).sum(1)
    allowed = fpr * all_out * (1 + 1e-12)  # the product may round below the whole number that it stands for
    # Only the top of the ranking matters: look at more non-members until every weighting is above what it is allowed.
    shown = min(len(outside.score), 64 + 4 * math.ceil(fpr * len(outside.score)))
    while True:
        passed = np.cumsum(outside.top(shown).weights(by_run, by_example), axis=0) > allowed
        if shown == len(outside.score) or passed[-1].all():
            break
        shown = min(len(outside.score), 2 * shown)
    never = ~passed.any(0)
    refused = np.where(never, -np.inf, outside.score[passed.argmax(0)]) if shown else np.full(len(runs), -np.inf)
    accepted = np.searchsorted(-inside.score, -refused, "left")
    top = inside.top(int(accepted.max(initial=0)))
    above = np.zeros((len(top.score) + 1, len(runs)))
    np.cumsum(top.weights(by_run, by_example), axis=0, out=above[1:])
    value = _ratio(above[accepted, np.arange(len(runs))], all_in)
    return np.where(all_out > 0, value, np.nan)


@dataclass(frozen=True)
class _Ranked:
    """Scores in order, with the run and the example that each came from."""

    score: FloatArray
    run: IntArray
    example: IntArray

    def reversed(self) -> _Ranked:
        return _Ranked(self.score[::-1], self.run[::-1], self.example[::-1])

    def top(self, count: int) -> _Ranked:
        return _Ranked(self.score[:count], self.run[:count], self.example[:count])

    def weights(self, by_run: FloatArray, by_example: FloatArray) -> FloatArray:
        """(n, B) products of the run weights (R, B) and the example weights (m, B)."""
        product: FloatArray = by_run[self.run]
        product *= by_example[self.example]
        return product


def _sorted(scores: FloatArray, chosen: BoolArray) -> _Ranked:
    """The chosen scores in ascending order, NaN left out."""
    run, example = np.nonzero(chosen & ~np.isnan(scores))
    score = scores[run, example]
    order = np.argsort(score, kind="stable")
    return _Ranked(score[order], run[order], example[order])


def _ratio(numerator: FloatArray, denominator: FloatArray | IntArray) -> FloatArray:
    """Elementwise quotient, NaN where the denominator is zero."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
