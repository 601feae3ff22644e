"""Consistency (C-score): how often models without an example are right, how confident they are, and how similar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure, gain_of
from fedmem.contracts.measurement import Reading
from fedmem.contracts.signal import per_class_of
from fedmem.estimation.in_and_out import estimate_in_and_out
from fedmem.estimation.statistics import mean, wilson

_MEASURE = Measure(
    name="consistency",
    title="consistency (C-score)",
    means="The share of runs without the example whose model is right about it.",
    is_not="It is a proxy, not memorisation. Published scores are for other shares of the data.",
    unit="share",
    range=(0.0, 1.0),
    direction="neither",
    section="proxies",
)

_CONFIDENCE = Measure(
    name="top_probability",
    title="largest probability (conf)",
    means="The mean probability of the most probable class, over runs without the example.",
    is_not="It is a proxy, not memorisation. The most probable class may be a wrong one.",
    range=(0.0, 1.0),
    direction="neither",
    section="proxies",
)

_DISAGREEMENT = Measure(
    name="disagreement",
    title="disagreement (agr)",
    means="The Jensen-Shannon divergence of the probabilities of two runs without the example, the mean over pairs.",
    is_not="It is a proxy, not memorisation: models disagree about what is hard.",
    unit="nats",
    range=(0.0, math.log(2.0)),
    direction="neither",
    section="proxies",
)


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """The C-score of Jiang, Zhang, Talwar and Mozer (2021) at one share of the data, with federations as trainings.

    `consistency` of example j is the mean correctness about j over the runs without j, from 0 (hard or wrongly
    labelled) to 1 (regular). With the label `statistic` = `in` it is that over runs with j, which is no C-score: these
    models have seen the answer. The difference of the two is the memorisation of j. A correlation of consistency with
    memorisation is therefore spurious if both are from the same runs: split the runs.

    - the mean over models of a place (the others) comes first;
    - published scores are for other shares of the data. Here, half of the audit examples are in each run, and all base
      rows. With `coins: {law: rate, rate: 0.7}` it is that share of them on average;
    - the interval of a single example is Wilson's over the runs of its side. For passages, where correctness is the
      share of tokens, it is wider than necessary.

    Carlini, Erlingsson and Papernot (2019) rank examples by five metrics. Where the signal `probabilities` was read,
    two of them are here, also over runs without the example and, with `statistic` = `in`, over runs with it:

    - `top_probability` (conf): the probability of the most probable class, 1/C to 1;
    - `disagreement` (agr): H((p + q)/2) − (H(p) + H(q))/2 of the probabilities p and q of two runs, 0 to ln 2 nats. The
      mean over all pairs does not depend on how many runs there are.

    The signal `adversarial_distance` is the third (adv). The fourth, the largest noise at which the example is still
    learnt (priv), is a comparison: see docs/signals.md. The signal `retraining_distance` is the fifth (ret).

    Fields: none.

    >>> Consistency().measures[0].range
    (0.0, 1.0)
    """

    measures: ClassVar[tuple[Measure, ...]] = (_MEASURE, _CONFIDENCE, _DISAGREEMENT)
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate")

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, over runs without the example and over runs with it."""
        estimates = []
        trials = view.audit.num_coin_rows / view.audit.runs  # twins are no further trials
        for quantity, measure in zip(self._quantities(view), self.measures, strict=False):
            both = estimate_in_and_out(view, quantity, measure, main="out")
            sides = [e for e in both if e.metric != gain_of(measure).name]
            estimates += [_with_wilson(e, trials) for e in sides] if measure is _MEASURE else sides
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def example_values(self, view: View) -> Sequence[ExampleValues]:
        """Correctness and, where it was read, the largest probability (R, m); no single run has a disagreement."""
        return self._quantities(view)[:2]

    def _quantities(self, view: View) -> Sequence[ExampleValues]:
        """The values of each measure, in order; the last two where probabilities were read."""
        quantities = [ExampleValues(metric=_MEASURE.name, values=mean(view.correct, axis=1))]
        p = per_class_of(view.signals, "probability")
        if p is not None:
            largest = mean(p.max(axis=-1), axis=1)
            quantities.append(ExampleValues(metric=_CONFIDENCE.name, values=largest))
            quantities.append(
                ExampleValues(
                    metric=_DISAGREEMENT.name, values=disagreements(p, view.audit.is_in, view.audit.coin_rows)
                )
            )
        return quantities


def disagreements(p: FloatArray, is_in: BoolArray, coin_rows: IntArray | None = None) -> FloatArray:
    """(R, m) values whose mean over the runs of each side is the mean Jensen-Shannon divergence of pairs of these runs.

    Their deviations give the squared standard error of the jackknife. These are those of the mean divergence of one
    run from all others, times 2 (n − 1) / (n − 2) with n runs on a side. NaN with fewer than two.

    Args:
        p: (R, Q, m, C) probabilities of all classes.
        is_in: (R, m) coins.
        coin_rows: (R,) equal for twins, which are no pairs; None where there are none.

    Examples:
        >>> p = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])[:, None, None, :]
        >>> disagreements(p, np.array([[False], [False], [True]])).round(4).tolist()
        [[0.6931], [0.6931], [nan]]
    """
    from scipy.special import entr

    coin_rows = np.arange(len(p)) if coin_rows is None else coin_rows
    own = entr(p).sum(-1)
    total, count = np.zeros(own.shape), np.zeros(own.shape)
    for first in range(len(p)):
        between = entr((p[first] + p[first + 1 :]) / 2).sum(-1) - (own[first] + own[first + 1 :]) / 2
        is_side = (is_in[first] == is_in[first + 1 :]) & (coin_rows[first] != coin_rows[first + 1 :])[:, None]
        is_pair = is_side[:, None] & ~np.isnan(between)
        between = np.where(is_pair, np.maximum(between, 0.0), 0.0)
        total[first] += between.sum(0)
        total[first + 1 :] += between
        count[first] += is_pair.sum(0)
        count[first + 1 :] += is_pair
    with np.errstate(divide="ignore", invalid="ignore"):
        of_run = mean(np.where(count > 0, total / count, np.nan), axis=1)
    middle, factor = np.zeros(is_in.shape), np.zeros(is_in.shape)
    of_twin = 1 / np.bincount(coin_rows)[coin_rows][:, None]
    for side in (is_in, ~is_in):
        of_side = np.where(side, of_run, np.nan)
        n = np.where(np.isnan(of_side), 0.0, of_twin).sum(0)
        middle = np.where(side, mean(of_side, axis=0), middle)
        factor = np.where(side, np.where(n > 2, 2 * (n - 1) / np.maximum(n - 2, 1e-300), 2.0), factor)
    return np.asarray(middle + factor * (of_run - middle))


def _with_wilson(e: Estimate, share: float) -> Estimate:
    """The same with Wilson's interval of each example, with this share of its runs as trials."""
    assert e.per_example is not None
    assert e.per_example_n is not None
    trials = e.per_example_n * share
    low, high = wilson(e.per_example * trials, trials)
    return replace(e, per_example_low=np.minimum(low, e.per_example), per_example_high=np.maximum(high, e.per_example))
