"""Exposure of canaries: how far up a model ranks an inserted canary among those that could have been inserted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, ExampleTarget, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Reading
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.single_examples import p_of_few
from fedmem.estimation.statistics import mean, means_by_coin
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.two_way import of_difference, of_ins, place_among


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """Exposure in bits after Carlini, Liu, Erlingsson, Kos and Song (2019), by exact rank among N fresh references.

    exposure = log2((N + 1) / rank), rank = 1 + #{smaller loss} + ½ #{equal loss}: from 0 to log2(N + 1), and never
    negative. Values of different N are not comparable. Two metrics, each the mean over canaries of a mean over runs:

    - `exposure`: over the in runs. Its null is *not* 0 but the mean over uniform ranks,
      log2(N + 1) − log2((N + 1)!)/(N + 1), near log2 e = 1.44 bits for large N;
    - `exposure_gain`: the mean over the in runs minus the mean over the canary's own out runs, null 0. It takes away
      the effect of the canary's value alone.

    Tests, by run and kind, not at the others. Let T = 2 ln 2 Σ exposure over the c in canaries of a run. Under the
    null, T has a χ² distribution with 2c degrees of freedom. `exposure_p` is its upper tail (Fisher's method), n = c.
    `exposure_rejected` (over all runs) is the share of runs with p < 0.05. It has no interval: runs share canaries and
    the initial model, so they are no independent trials.

    All canaries and runs share the N references, and intervals take them as they are. Use several times as many
    references as canaries. The intervals of 100 canaries in 8 runs held the null in 94 % of simulations with 200
    references, and in 89 % with 100.

    Secrets that people wrote (`existing_secret`) are not drawn as their references are: likely values rank high without
    memorisation. For such a kind there are no null and neither of the two tests; `exposure_gain` and p from random
    inclusion hold.

    Only canaries have a rank; at the others, bits are averaged over the models before runs are averaged.

    Fields: none.

    >>> [round(null_mean(count), 2) for count in (10, 100, 1000)]
    [1.16, 1.4, 1.44]
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="exposure",
            title="exposure",
            means="How far up the model ranks an inserted canary among fresh canaries that could have been inserted "
            "instead, in bits (log2). One bit more means that half as many are ranked above it.",
            is_not="It is not self-influence: it shows the worst case for planted patterns, and is above zero without "
            "any memorisation. It cannot exceed log2 of the number of references plus one. Within half a bit of "
            "that ceiling it is marked as saturated, since differences there are hidden.",
            unit="bits",
            range=(0.0, math.inf),
            digits=2,
            headline=True,
            shows="exposed",
            terms=(
                ("exposure", "bits that the rank of an example leaks, among others that could have been in its place"),
            ),
            order=0,
            ranked="value",
            bound="exposure",
            compares="rank",
            gain="exposure_gain",
        ),
        Measure(
            name="exposure_gain",
            title="exposure gain",
            means="Mean exposure over the runs with the canary minus that over the runs without it.",
            is_not="It is no rank: the effect of the canary's value alone is subtracted.",
            unit="bits",
            null=0.0,
            digits=2,
            section="none",
            ranked="gain",
            compares="rank",
        ),
        Measure(
            name="exposure_p",
            title="p of exposure",
            means="The p-value of no memorisation for one run, by Fisher's method over its canaries.",
            range=(0.0, 1.0),
            direction="neither",
            section="none",
        ),
        Measure(
            name="exposure_rejected",
            title="runs with p of exposure below 0.05",
            means="The share of runs in which `exposure_p` is below 0.05.",
            unit="share",
            range=(0.0, 1.0),
            section="none",
        ),
    )
    min_runs: ClassVar[int] = 1
    counts_groups: ClassVar[bool] = True
    needs_canaries: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind of canary, `exposure` and `exposure_gain`."""
        audit = view.audit
        bits = mean(_bits(view), axis=1)
        inside, outside = (side[0] for side in means_by_coin(bits, audit.is_in, np.ones((1, audit.runs))))
        is_measured = ~np.isnan(bits)
        ins, both = (is_measured & audit.is_in).sum(0), is_measured.sum(0)
        estimates = []
        for kind in audit.kinds:
            for metric, values, trials in (("exposure", inside, ins), ("exposure_gain", inside - outside, both)):
                rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(values))
                if not len(rows):
                    continue
                gain = metric == "exposure_gain"
                null_means = [null_mean(count) for count in view.references[rows].tolist()]
                ceiling = float(np.log2(view.references[rows] + 1.0).mean())
                parts = (of_difference if gain else of_ins)(bits[:, rows], audit.is_in[:, rows])
                estimates.append(
                    Estimate(
                        metric=metric,
                        kind=kind,
                        value=float(values[rows].mean()),
                        influence=place_among(parts, rows, len(audit)),
                        null=0.0 if gain else math.nan if kind in audit.not_uniform else float(np.mean(null_means)),
                        bounds=(-ceiling if gain else 0.0, ceiling),
                        p=of_means(bits, rows, view.redeals, gap=gain) if view.round is None else math.nan,
                        redeals=num_redeals(view.redeals, rows),
                        n=len(rows),
                        examples=rows,
                        per_example=values[rows],
                        per_example_n=trials[rows],
                        per_example_p=p_of_few(average_twins(bits, audit), coins_of_rows(audit), rows)
                        if view.round is None
                        else None,
                    )
                )
        return estimates

    def example_targets(self, view: View) -> Sequence[ExampleTarget]:
        """Mean exposure of each canary over the in runs of a part; NaN without one, and for other examples."""
        bits = mean(_bits(view), axis=1)
        if np.isnan(bits).all():
            return ()

        def from_runs(runs: BoolArray) -> FloatArray:
            return np.asarray(means_by_coin(bits, view.audit.is_in, runs[None].astype(np.float64))[0][0])

        return (ExampleTarget(metric="exposure", from_runs=from_runs),)

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The combined p-value of every run and kind, and the share of runs in which it is below 0.05."""
        from scipy.stats import chi2

        if view.place == "others":  # the mean of several exposures is not distributed as one
            return ()
        audit = view.audit
        bits = np.where(audit.is_in, mean(_bits(view), axis=1), np.nan)
        readings: list[tuple[int | None, Reading]] = []
        for kind in (kind for kind in audit.kinds if kind not in audit.not_uniform):
            of_kind = bits[:, audit.kind == kind]
            count = (~np.isnan(of_kind)).sum(1)
            tested = np.flatnonzero(count)
            statistic = 2 * math.log(2) * np.nansum(of_kind[tested], axis=1)
            p = np.asarray(chi2.sf(statistic, 2 * count[tested]), dtype=np.float64)
            for run, value in zip(tested.tolist(), p.tolist(), strict=True):
                readings.append((run, Reading(metric="exposure_p", value=value, n=int(count[run]), subject=kind)))
            if len(tested):
                share = float(np.mean(p < 0.05))
                readings.append((None, Reading(metric="exposure_rejected", value=share, n=len(tested), subject=kind)))
        return readings


def null_mean(references: int) -> float:
    """Mean exposure, in bits, of a canary that was never trained on, among this many references."""
    places = references + 1
    return math.log2(places) - math.lgamma(places + 1) / math.log(2) / places


def _bits(view: View) -> FloatArray:
    """Exposure of every model (R, Q, m), NaN where there is no rank."""
    return np.log2((view.references + 1) / view.rank)
