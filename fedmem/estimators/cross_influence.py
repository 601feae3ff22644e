"""Cross-influence: which test examples a model answers better or worse because an audit example was trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Reading
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import (
    benjamini_hochberg,
    fisher_exact,
    means_by_coin,
    rank_sum_exact,
    student_mean,
)
from fedmem.estimation.two_way import FEWEST, of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class CrossInfluence:
    """Influence of audit example j on test example i after Feldman and Zhang (2020), with federations as trainings.

    infl(j, i) = mean over in runs of M_i − mean over out runs of M_i, the coins being those of j. M_i is correctness
    (no label) or the probability of the label (label `statistic` = `probability`, less noisy). From −1 to 1; above 0, j
    helps i. Only in the summary, at the aggregate and at the owner. The model of each j is the one from which its
    memorisation is read, so all measures are of the same pairs.

    `cross_influence`, per kind and per example: Σ_i infl(j, i), the test examples that the models gain (+) or lose (−)
    by training on j. Its null is 0, and it has the interval of every estimate. Useful examples lie above 0, noise
    below. Gains and losses cancel in this sum, so there is no retention of it.

    Tests, over all runs, by kind:

    - `cross_pairs_helped`, `cross_pairs_harmed`: pairs (j, i) in which i is answered significantly better and worse in
      the in runs. The p-value of a pair is exact, because only coins decided: Fisher's test for correctness, the rank
      sum test for probability. There a tie between an in and an out run counts against significance (p is then too
      large, never too small). Better and worse are in the sense of the test: more right answers, or higher ranks. A few
      outlying runs can give ranks another sign than the mean. Pairs are chosen by Benjamini and Hochberg's rule over
      all of a kind. It keeps the expected share of false pairs at most at `rate` where pairs are independent or depend
      positively. For pairs that share runs this is not proved, but in simulations it was conservative. The number n
      counts pairs. Few runs cannot find any: p is at least 2 / C(R, R/2);
    - `cross_strongest`: mean over j of max_i infl(j, i); `cross_help`, `cross_harm`: mean over j of Σ_i over the
      positive and the negative influences. All three are away from 0 by noise alone. So each comes with `….null`,
      its mean over permutations of the runs' coins, and `…_p`, the share of permutations that are as far out. The
      interval of the value is over examples, with the runs as they are; n counts examples;
    - `cross_help`, `cross_harm` of every single example, without interval, n its runs; compare with the null.

    Fields:
        rate: Expected share of wrong pairs among those that are called significant.

    >>> CrossInfluence().min_runs
    4
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="cross_influence",
            title="cross-influence",
            means="The number of test examples answered rightly because one audit example was trained on, minus the "
            "number answered wrongly because of it.",
            is_not="It is not self-influence. Gains and losses cancel in this sum.",
            null=0.0,
            direction="neither",
            digits=2,
            section="cross-influence",
            order=5,
            terms=(
                (
                    "gained",
                    "test examples answered rightly because one example was trained on, minus those lost",
                ),
            ),
        ),
        Measure(
            name="cross_help",
            title="help to test examples",
            means="The mean over audit examples of the sum of their positive influences on test examples.",
            is_not="Noise alone makes it larger than 0: compare it with what noise gives.",
            range=(0.0, math.inf),
            direction="neither",
            digits=2,
            section="cross-influence",
            order=5,
            terms=(("helped", "test examples that gain by one example, each by its share of runs, summed"),),
        ),
        Measure(
            name="cross_harm",
            title="harm to test examples",
            means="The mean over audit examples of the sum of their negative influences on test examples.",
            is_not="Noise alone makes it smaller than 0: compare it with what noise gives.",
            range=(-math.inf, 0.0),
            direction="neither",
            digits=2,
            section="cross-influence",
            order=5,
            terms=(
                ("harmed", "the same for those that lose"),
                ("by noise", "what shuffled inclusions give, and p, the share of shuffles that are as far out"),
            ),
        ),
        Measure(
            name="cross_strongest",
            title="strongest influence",
            means="The mean over audit examples of the largest influence on any test example.",
            is_not="Noise alone makes it larger than 0.",
            range=(-1.0, 1.0),
            direction="neither",
            section="none",
        ),
        Measure(
            name="cross_help_p",
            title="p of cross_help",
            means="The share of permuted inclusions that are as far out as `cross_help`.",
            range=(0.0, 1.0),
            direction="neither",
            section="cross-influence",
        ),
        Measure(
            name="cross_harm_p",
            title="p of cross_harm",
            means="The share of permuted inclusions that are as far out as `cross_harm`.",
            range=(0.0, 1.0),
            direction="neither",
            section="cross-influence",
        ),
        Measure(
            name="cross_strongest_p",
            title="p of cross_strongest",
            means="The share of permuted inclusions that are as far out as `cross_strongest`.",
            range=(0.0, 1.0),
            direction="neither",
            section="none",
        ),
        Measure(
            name="cross_pairs_helped",
            title="significant pairs, helped",
            means="Pairs of an audit and a test example where the test example is answered significantly better in "
            "the runs with the audit example.",
            is_not="A pair is called only where chance, over all pairs, is unlikely.",
            range=(0.0, math.inf),
            direction="neither",
            digits=0,
            section="cross-influence",
            order=5,
            terms=(
                (
                    "significant pairs",
                    "an audit and a test example whose influence is significant, few of them wrongly",
                ),
            ),
        ),
        Measure(
            name="cross_pairs_harmed",
            title="significant pairs, harmed",
            means="Pairs of an audit and a test example where the test example is answered significantly worse in the "
            "runs with the audit example.",
            is_not="A pair is called only where chance, over all pairs, is unlikely.",
            range=(0.0, math.inf),
            direction="neither",
            digits=0,
            section="cross-influence",
            order=5,
        ),
    )
    needs_independent_runs: ClassVar[bool] = True
    min_runs: ClassVar[int] = 4
    ranks_test: ClassVar[bool] = True

    rate: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.05

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, the test examples gained, by correctness and by probability."""
        estimates: list[Estimate] = []
        for statistic in _statistics(view):
            gained = np.full(view.audit.is_in.shape, np.nan)
            for examples, values, is_counted in _groups(view, statistic):
                gained[:, examples] = np.where(is_counted, values.sum(1)[:, None], np.nan)
            estimates += _by_kind(view, gained, statistic)
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Significant pairs, the strongest influences, and total help and harm against their nulls."""
        labelled_readings: list[tuple[int | None, Reading]] = []
        for statistic in _statistics(view):
            parts = list(_influences(view, statistic))
            for kind in view.audit.kinds:
                kind_parts = [part.of(view.audit.kind[part.examples] == kind) for part in parts]
                readings = [*_pairs(kind_parts, self.rate), *_sizes(kind_parts, view)]
                labelled_readings += [(None, _label_reading(reading, kind, statistic)) for reading in readings]
        return labelled_readings


@dataclass(frozen=True)
class _Part:
    """Examples that share a model: p and side of each pair (c, n), sizes (3, P + 1, c), unshuffled first."""

    examples: IntArray
    runs: IntArray
    p: FloatArray
    side: FloatArray
    sizes: FloatArray

    def of(self, mask: BoolArray) -> _Part:
        """Some of the examples."""
        return _Part(self.examples[mask], self.runs[mask], self.p[mask], self.side[mask], self.sizes[:, :, mask])


def _statistics(view: View) -> tuple[str, ...]:
    """The measurements at this view: none except in the summary, with a test set, at a single model per run."""
    test = view.sets.get("test")
    some = view.round is None and view.margin.shape[1] == 1 and view.place != "others" and test is not None
    return ("", "probability") if some and test is not None and test.size else ()


def _groups(view: View, statistic: str) -> Iterator[tuple[IntArray, FloatArray, BoolArray]]:
    """Examples that share a model, what it says of the test set (R, n), and in which runs they count (R, c)."""
    test = view.sets["test"]
    of = test.models.of[0]
    for pair in np.unique(of[of >= 0]).tolist():
        values = np.exp(-test.loss(pair)) if statistic else test.correct(pair)
        is_finite = ~np.isnan(test.loss(pair)).any(1, keepdims=True)  # a model that has diverged says nothing
        examples = np.flatnonzero(of == pair)
        is_counted = is_finite & ~np.isnan(view.margin[:, 0, examples])
        if is_counted.any():
            yield examples, values, is_counted


def _influences(view: View, statistic: str) -> Iterator[_Part]:
    """p-values, sides and sizes of all pairs, group by group."""
    for examples, values, is_counted in _groups(view, statistic):
        is_in = view.audit.is_in[:, examples]
        ins, outs = (is_in & is_counted).sum(0), (~is_in & is_counted).sum(0)
        some = (ins > 0) & (outs > 0)
        examples, is_in, is_counted, ins, outs = (
            examples[some],
            is_in[:, some],
            is_counted[:, some],
            ins[some],
            outs[some],
        )
        p, side = np.empty((2, len(examples), values.shape[1]))
        sizes = np.empty((3, len(view.redeals.shuffles) + 1, len(examples)))
        # Examples that are seen in the same runs share ranks, tables and shuffles: with all clients in, all of them.
        patterns, which = np.unique(is_counted, axis=1, return_inverse=True)
        for k in range(patterns.shape[1]):
            columns, runs = np.flatnonzero(which.ravel() == k), np.flatnonzero(patterns[:, k])
            coins, outcomes = is_in[np.ix_(runs, columns)], values[runs]
            p[columns], side[columns] = (_by_ranks if statistic else _by_tables)(coins, outcomes)
            sizes[:, 0, columns] = _totals(_influence(coins, outcomes))
            for s, shuffle in enumerate(view.redeals.shuffles, 1):
                order = np.argsort(np.argsort(shuffle)[runs])
                sizes[:, s, columns] = _totals(_influence(coins[order], outcomes))
        yield _Part(examples, ins + outs, p, side, sizes)


def _influence(coins: BoolArray, values: FloatArray) -> FloatArray:
    """(c, n) difference of means from coins (R, c) and values (R, n)."""
    weights = coins / coins.sum(0) - ~coins / (~coins).sum(0)
    # Measured from the first run, values that are equal in all runs differ by exactly nothing.
    return np.asarray(weights.T @ (values - values[:1]))


def _totals(influence: FloatArray) -> FloatArray:
    """(3, c): the strongest, the help and the harm of each example."""
    help_, harm = np.maximum(influence, 0.0).sum(1), np.minimum(influence, 0.0).sum(1)
    return np.stack([influence.max(1), help_, harm])


def _by_tables(coins: BoolArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(c, n) each: Fisher's exact p of correctness, and whether in runs are right more (1) or less often (−1)."""
    total, successes = len(coins), values.sum(0)
    inside = coins.T.astype(np.float64) @ values
    p = np.empty_like(inside)
    for num_in, columns in _by_number_of_ins(coins):
        num_successes = np.broadcast_to(successes.round().astype(np.int64), inside[columns].shape)
        p[columns] = fisher_exact(total, num_in)[num_successes, inside[columns].round().astype(np.int64)]
    return p, np.sign(inside * total - coins.sum(0)[:, None] * successes)


def _by_ranks(coins: BoolArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(c, n) each: p of the rank sum test, exact without ties, and whether in runs rank higher (1) or lower (−1).

    Breaking ties at random would leave it exact. They are broken so that U is as near the middle as possible. That
    gives the largest p of all ways to break them: never too small.
    """
    from scipy.stats import rankdata

    total = len(coins)
    inside = coins.T.astype(np.float64)
    p, side = np.empty((2, coins.shape[1], values.shape[1]))
    rank_sum, ties = inside @ rankdata(values, axis=0), _ties(coins, values)
    for num_in, columns in _by_number_of_ins(coins):
        pairs = num_in * (total - num_in)
        away = rank_sum[columns] - num_in * (num_in + 1) / 2 - pairs / 2
        away = np.sign(away) * np.maximum(np.abs(away) - ties[columns] / 2, (pairs % 2) / 2)
        p[columns] = rank_sum_exact(total, num_in)[(pairs / 2 + away).round().astype(np.int64)]
        side[columns] = np.sign(away)
    return p, side


def _ties(coins: BoolArray, values: FloatArray) -> FloatArray:
    """(c, n) pairs of an in and an out run with the same value."""
    ties = np.zeros((coins.shape[1], values.shape[1]))
    ordered = np.sort(values, axis=0)
    for column in np.flatnonzero((ordered[1:] == ordered[:-1]).any(0)).tolist():
        _, group = np.unique(values[:, column], return_inverse=True)
        indicator = np.eye(group.max() + 1)[group].T
        inside = indicator @ coins
        ties[:, column] = (inside * (indicator.sum(1, keepdims=True) - inside)).sum(0)
    return ties


def _by_number_of_ins(coins: BoolArray) -> Iterator[tuple[int, IntArray]]:
    """Each number of in runs, and the examples that have it: they share tables."""
    for num_in in np.unique(coins.sum(0)).tolist():
        yield num_in, np.flatnonzero(coins.sum(0) == num_in)


def _by_kind(view: View, gained: FloatArray, statistic: str) -> Iterator[Estimate]:
    """The test examples gained per kind from the number of right answers of each run (R, m)."""
    audit = view.audit
    inside, outside = (side[0] for side in means_by_coin(gained, audit.is_in, np.ones((1, audit.runs))))
    limit = float(view.sets["test"].size)
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(inside - outside))
        if len(rows):
            net = inside[rows] - outside[rows]
            yield Estimate(
                metric="cross_influence",
                kind=kind,
                labels=Labels.of(statistic=statistic),
                value=float(net.mean()),
                influence=place_among(of_difference(gained[:, rows], audit.is_in[:, rows]), rows, len(audit)),
                null=0.0,
                bounds=(-limit, limit),
                p=of_means(gained, rows, view.redeals),
                redeals=num_redeals(view.redeals, rows),
                n=len(rows),
                examples=rows,
                per_example=net,
                per_example_n=(~np.isnan(gained[:, rows])).sum(0),
                signed=True,
            )


def _pairs(parts: Sequence[_Part], rate: float) -> Iterator[Reading]:
    """How many pairs of a kind are significant, above and below 0."""
    p = np.concatenate([np.empty(0), *(part.p.ravel() for part in parts)])
    side = np.concatenate([np.empty(0), *(part.side.ravel() for part in parts)])
    if len(p):
        is_significant = benjamini_hochberg(p, rate)
        for metric, sign in (("cross_pairs_helped", 1), ("cross_pairs_harmed", -1)):
            yield Reading(metric=metric, value=float((is_significant & (side == sign)).sum()), n=len(p))


def _sizes(parts: Sequence[_Part], view: View) -> Iterator[Reading]:
    """The strongest influence, total help and total harm of a kind, with their nulls, and of single examples."""
    examples = np.concatenate([np.empty(0, np.int64), *(part.examples for part in parts)])
    if not len(examples):
        return
    sizes = np.concatenate([part.sizes for part in parts], axis=2)
    runs = np.concatenate([part.runs for part in parts])
    for row, metric in enumerate(("cross_strongest", "cross_help", "cross_harm")):
        means = sizes[row].mean(1)
        enough = min(view.audit.runs, len(examples)) >= FEWEST
        low, high = student_mean(sizes[row, 0]) if enough else (math.nan, math.nan)
        as_far = means[1:] <= means[0] + 1e-12 if metric == "cross_harm" else means[1:] >= means[0] - 1e-12
        yield Reading(metric=metric, value=float(means[0]), low=low, high=high, n=len(examples))
        yield Reading(metric=f"{metric}.null", value=float(means[1:].mean()), n=len(examples))
        # The coins as they fell are one of the permutations, so p is never 0.
        yield Reading(metric=f"{metric}_p", value=float((1 + as_far.sum()) / len(means)), n=len(means) - 1)
        if metric != "cross_strongest":
            for example, value, n in zip(examples.tolist(), sizes[row, 0].tolist(), runs.tolist(), strict=True):
                yield Reading(metric=metric, value=value, n=n, subject=str(example))


def _label_reading(reading: Reading, kind: str, statistic: str) -> Reading:
    """The same about a kind, unless it is about a single example."""
    return Reading(
        metric=reading.metric,
        value=reading.value,
        low=reading.low,
        high=reading.high,
        n=reading.n,
        subject=reading.subject or kind,
        labels=Labels.of(statistic=statistic),
    )
