"""Memorisation with less noise: outcomes minus what the inclusion of other examples explains, without bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Reading
from fedmem.estimation.coin_adjustment import adjust, balanced_folds, features_of
from fedmem.estimation.statistics import mean, welch_columns
from fedmem.estimation.two_way import of_difference, place_among
from fedmem.seeding import stream

_NAME = "memorisation_adjusted"


@dataclass(frozen=True, kw_only=True)
class AdjustedMemorisation:
    """Self-influence as `memorisation` has it, from outcomes freed of the inclusion of other examples.

    The expectation is that of `memorisation`, over coins, replacement rows and batches. The module
    `fedmem.estimation.coin_adjustment` explains why. The gain depends on how much of the noise the coins of near
    examples explain. With 64 runs of `quickstart`, the standard error of the probability of one example is 0.96 to 1.01
    times that of `memorisation`. This is far from the precision of twice as many runs, 0.71.

    - `memorisation_adjusted`: by correctness (no label) and by the probability of the label (`statistic` =
      `probability`), of kinds and of single examples, in the summary. The interval of a kind is from two-way clusters,
      that of an example is Welch's. There is no p: the exact one is that of `memorisation`;
    - `adjusted_error`: the standard error of single examples with the adjustment, as a share of that without it. It is
      the root of a ratio of mean variances. Above 1 the adjustment adds noise.

    Examples that are in and out in different numbers of runs, or that are not observed in all runs, are not adjusted.

    Fields: none.

    >>> AdjustedMemorisation().min_runs
    8

    Reference: Lin (2013), Agnostic notes on regression adjustments to experimental data, Annals of Applied Statistics
    7(1), for the idea. Feldman and Zhang (2020), for the quantity.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name=_NAME,
            title="memorisation, adjusted",
            means="Memorisation from outcomes minus what the inclusion of other examples explains.",
            is_not="It is no new quantity: it estimates memorisation, with different noise.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
        Measure(
            name="adjusted_error",
            title="standard error with the adjustment",
            means="The standard error of adjusted memorisation of single examples, as a share of that of memorisation.",
            range=(0.0, math.inf),
            direction="neither",
            section="none",
        ),
    )
    min_runs: ClassVar[int] = 8
    needs_independent_runs: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind, by correctness and by probability, in the summary."""
        return [
            _estimate(view, statistic, kind, rows, values)
            for statistic, kind, rows, values, _ in _adjusted_outcomes(view)
        ]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The ratio of standard errors of each kind."""
        readings: list[tuple[int | None, Reading]] = []
        for statistic, kind, rows, values, outcomes in _adjusted_outcomes(view):
            is_in = view.audit.is_in[:, rows]
            if not ((is_in.sum(0) > 1) & ((~is_in).sum(0) > 1)).all():
                continue
            before, after = (mean_square_error(part, is_in) for part in (outcomes, values))
            ratio = math.sqrt(after / before) if before > 0 else math.nan
            labels = Labels.of(statistic=statistic)
            reading = Reading(metric="adjusted_error", value=ratio, n=len(rows), subject=kind, labels=labels)
            readings.append((None, reading))
        return readings


def _adjusted_outcomes(view: View) -> Iterator[tuple[str, str, IntArray, FloatArray, FloatArray]]:
    """For each statistic and kind: its examples, their adjusted outcomes and their outcomes, (R, n) each."""
    if view.round is not None:
        return
    audit = view.audit
    order = stream(0, "folds of adjusted memorisation").permutation(audit.runs)
    with np.errstate(invalid="ignore"):
        probability = np.exp(-np.logaddexp(0.0, -view.margin))
    for statistic, values in (("", view.correct), ("probability", probability)):
        outcomes = mean(values, axis=1)
        is_measured = ~np.isnan(outcomes)
        both = (is_measured & audit.is_in).any(0) & (is_measured & ~audit.is_in).any(0)
        for kind in audit.kinds:
            rows = np.flatnonzero((audit.kind == kind) & both)
            if len(rows):
                folds = balanced_folds(audit.is_in[:, rows], order)
                adjusted = adjust(outcomes[:, rows], audit.is_in[:, rows], features_of(audit, rows), folds)
                yield statistic, kind, rows, adjusted, outcomes[:, rows]


def _sides(values: FloatArray, is_in: BoolArray) -> tuple[FloatArray, FloatArray]:
    """The values of in runs and those of out runs, NaN at the others."""
    return np.where(is_in, values, np.nan), np.where(is_in, np.nan, values)


def _estimate(view: View, statistic: str, kind: str, rows: IntArray, values: FloatArray) -> Estimate:
    """The estimate of one kind from adjusted outcomes."""
    audit = view.audit
    is_in = audit.is_in[:, rows]
    ins, outs = _sides(values, is_in)
    per_example = mean(ins, axis=0) - mean(outs, axis=0)
    low, high = welch_columns(ins, outs)
    return Estimate(
        metric=_NAME,
        kind=kind,
        labels=Labels.of(statistic=statistic),
        value=float(per_example.mean()),
        influence=place_among(of_difference(values, is_in), rows, len(audit)),
        null=0.0,
        bounds=(-1.0, 1.0),
        n=len(rows),
        examples=rows,
        per_example=per_example,
        per_example_low=np.clip(low, -1.0, 1.0),
        per_example_high=np.clip(high, -1.0, 1.0),
        per_example_n=(~np.isnan(values)).sum(0),
    )


def mean_square_error(values: FloatArray, is_in: BoolArray) -> float:
    """The mean over examples of the squared standard error of in − out, from the spread within each side."""
    ins, outs = _sides(values, is_in)
    squares = [np.nanvar(side, axis=0, ddof=1) / np.maximum((~np.isnan(side)).sum(0), 1) for side in (ins, outs)]
    return float(np.nanmean(squares[0] + squares[1]))
