"""Exposure beyond the number of references, from a skew-normal fitted to their losses, with its goodness of fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import annotated_types
import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import mean, means_by_coin, student_mean
from fedmem.estimation.two_way import FEWEST, of_ins, place_among
from fedmem.estimators._skew_normal import SkewNormal, fit, log_cdf, positions


@dataclass(frozen=True, kw_only=True)
class ExposureSkewnormal:
    """Exposure by extrapolation, −log2 F(score), after Carlini, Liu, Erlingsson, Kos and Song (2019).

    By rank, exposure ends at log2(N + 1) of N references. Here F is a skew-normal distribution fitted to the 256 stored
    quantiles of the reference losses of the same model and label. So a canary far below all references has more bits
    than their ranks could show. In the bulk it agrees with the exposure by rank. F is evaluated in logarithms: no value
    is infinite. N references cannot show whether the family fits that far out: read it together with `exposure`. Use at
    least 200 references. With 20 normal references nearly every fit counts. The mean without memorisation is 1.9 bits
    instead of 1.44, and a single canary that was never trained on had 1511.

    Only in the summary, at the aggregate and at the owner:

    - `exposure_extrapolated`, in bits from 0 up without end: the mean over canaries of the mean over in runs. Its null
      is log2 e = 1.44, the mean over uniform F. It has none for secrets that people wrote;
    - a fit counts only where the Kolmogorov-Smirnov p of the references is at least `min_p`. The parameters are
      fitted to the same references, so the true p is smaller: the test rejects too little, never too much. A canary
      whose every in run fits poorly is left out;
    - tests, over all runs, by kind: `skewnormal_fitted`, the share of models that count, and `skewnormal_distance`, the
      mean Kolmogorov-Smirnov distance with its interval over canaries. The number n counts fits, one for each canary
      and run. Where no canary is left, `exposure_extrapolated` is NaN with the label `fit` = `poor`.

    Fields:
        scale: Fit losses (nats), as in the paper, or margins, log p − log(1 − p). A loss ends at 0. Near 0 a law
            without end has too few bits for a canary that is well known, and margins say more.
        min_p: Smallest Kolmogorov-Smirnov p of a fit that counts.

    >>> ExposureSkewnormal().scale
    'loss'
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="exposure_extrapolated",
            title="exposure, extrapolated",
            means="Exposure in bits, from a skew-normal law that is fitted to the losses of the references of each "
            "model, where the fit is good. It does not end at the number of references.",
            is_not="It is an extrapolation: beyond the references nothing checks the law. Models whose fit is poor "
            "are left out.",
            unit="bits",
            range=(0.0, math.inf),
            digits=2,
            headline=True,
            shows="exposed",
            terms=(
                (
                    "extrapolated",
                    "read from a law fitted to the losses of the references, so that it can exceed their number",
                ),
            ),
            order=1,
        ),
        Measure(
            name="skewnormal_fitted",
            title="models whose fit counts",
            means="The share of models whose references pass the test of Kolmogorov and Smirnov.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
            section="none",
        ),
        Measure(
            name="skewnormal_distance",
            title="distance of the fit",
            means="The mean distance of Kolmogorov and Smirnov between the law and the references.",
            range=(0.0, 1.0),
            direction="neither",
            section="none",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("scale", "text", "the scale of the fitted law", (("margin", "from margins"),)),
        Label("fit", "text", "poor: no fit of a model counts"),
    )
    min_runs: ClassVar[int] = 1
    needs_canaries: ClassVar[bool] = True

    scale: Literal["loss", "margin"] = "loss"
    min_p: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.1

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind of canary, `exposure_extrapolated`."""
        fitted = self._fit_references(view)
        if fitted is None:
            return ()
        bits = np.where(fitted.good, fitted.bits, np.nan)
        audit = view.audit
        inside = means_by_coin(bits, audit.is_in, np.ones((1, audit.runs)))[0][0]
        estimates = []
        for kind in audit.kinds:
            rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(inside))
            if len(rows):
                estimates.append(
                    Estimate(
                        metric="exposure_extrapolated",
                        kind=kind,
                        labels=self._labels,
                        value=float(inside[rows].mean()),
                        influence=place_among(of_ins(bits[:, rows], audit.is_in[:, rows]), rows, len(audit)),
                        null=math.nan if kind in audit.not_uniform else math.log2(math.e),
                        bounds=(0.0, math.inf),
                        p=of_means(bits, rows, view.redeals, gap=False),
                        redeals=num_redeals(view.redeals, rows),
                        n=len(rows),
                        examples=rows,
                        per_example=inside[rows],
                        per_example_n=(~np.isnan(bits[:, rows]) & audit.is_in[:, rows]).sum(0),
                    )
                )
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """How well the fits are, by kind."""
        fitted = self._fit_references(view)
        return () if fitted is None else [(None, reading) for reading in self._fits(view, fitted)]

    @property
    def _labels(self) -> Labels:
        return Labels.of(scale="" if self.scale == "loss" else self.scale)

    def _fits(self, view: View, fitted: _Fitted) -> Iterator[Reading]:
        for kind in view.audit.kinds:
            rows = np.flatnonzero(view.audit.kind == kind)
            tried = ~np.isnan(fitted.bits[:, rows])
            if not tried.any():
                continue
            distance = np.where(tried, fitted.distance[:, rows], np.nan)
            means = mean(distance, axis=0)
            enough = min(view.audit.runs, int(tried.any(0).sum())) >= FEWEST
            low, high = student_mean(means) if enough else (math.nan, math.nan)
            n, good = int(tried.sum()), fitted.good[:, rows] & tried
            labels = self._labels
            value = float(np.nanmean(means))
            yield Reading(metric="skewnormal_fitted", value=float(good.sum()) / n, n=n, subject=kind, labels=labels)
            yield Reading(
                metric="skewnormal_distance", value=value, low=low, high=high, n=n, subject=kind, labels=labels
            )
            if not (good & view.audit.is_in[:, rows]).any():
                poor = labels.plus(fit="poor")
                yield Reading(metric="exposure_extrapolated", value=math.nan, n=0, subject=kind, labels=poor)

    def _fit_references(self, view: View) -> _Fitted | None:
        """Bits, distances and quality of every canary in every run; None where there is nothing to fit."""
        ranked, margins = view.ranked, view.margin[:, 0]
        canaries = np.flatnonzero(~np.isnan(view.rank[:, 0]).all(0))
        if view.round is not None or view.place == "others" or ranked is None or not len(canaries):
            return None
        # references of passages are compared by the sums over their tokens
        num_tokens = view.audit.examples.num_targets
        bits, distance = np.full((2, *margins.shape), np.nan)
        good = np.zeros(margins.shape, dtype=bool)
        for j in canaries.tolist():
            pair, label = int(ranked.models.of[0, j]), int(view.audit.examples.labels[j])
            count = int(view.references[j])
            references, score = (
                ranked.quantiles(pair, str(view.audit.kind[j]), label),
                view.loss[:, 0, j] * num_tokens[j],
            )
            if self.scale == "margin":
                with np.errstate(divide="ignore", invalid="ignore"):
                    # Of a loss too small for single precision 0 was stored: no finite margin, hence no fit.
                    alone = -margins[:, j] if num_tokens[j] == 1 else np.log(-np.expm1(-score)) + score
                    references, score = np.log(-np.expm1(-references)) + references, alone
            law = fit(references, count)
            distance[:, j], p = _kolmogorov(references, law, count)
            is_measured = ~np.isnan(score)
            good[:, j] = is_measured & (p >= self.min_p)
            # Where there is no law there are no bits, but a fit that was tried.
            bits[:, j] = np.where(is_measured, np.nan_to_num(-log_cdf(score, law) / math.log(2)).clip(0), np.nan)
        return _Fitted(bits=bits, distance=distance, good=good)


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """For every run and example (R, m): bits (NaN: no canary, or not observed), distance, and whether the fit
    counts.
    """

    bits: FloatArray
    distance: FloatArray
    good: BoolArray


def _kolmogorov(ordered: FloatArray, law: SkewNormal, count: int) -> tuple[FloatArray, FloatArray]:
    """(T,) largest distance between the law and `count` references at their stored quantiles, and its p.

    Between two stored quantiles the distance can be larger by at most their spacing. Without a fit: 1 and 0.
    """
    from scipy.stats import kstwo

    place = positions(count)
    level = np.exp(log_cdf(ordered, SkewNormal(*(value[:, None] for value in law))))
    with np.errstate(invalid="ignore"):
        gap = np.maximum(level - place / count, (place + 1) / count - level).max(1)
    unknown = np.isnan(gap)
    gap = np.where(unknown, 1.0, gap)
    return gap, np.where(unknown, 0.0, kstwo.sf(gap, count))
