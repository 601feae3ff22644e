"""Precision of the surest guesses of a sensitive column, from a model and by imputation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.signal import signal_measures
from fedmem.estimation.randomisation import deals_of, two_sided
from fedmem.estimation.statistics import mean
from fedmem.estimation.two_way import influence, place_among

GUESSES = {"weighted": "attribute_weighted", "imputed": "attribute_imputed", "mode": "attribute_mode"}
"""The guess -> the signal that says whether it is right."""

DEALS = 500
"""Deals of the coins that p is from, at most."""

_MEASURES = signal_measures(
    Measure(
        name="attribute_precision",
        title="precision of the surest guesses of the attribute",
        means="Of the guesses of a sensitive column with the largest confidence, the share that is right.",
        is_not="It is high where the surest guesses are those of a common value. Compare it with imputation and mode.",
        unit="share",
        range=(0.0, 1.0),
        trained_on="higher",
    )
)


@dataclass(frozen=True, kw_only=True)
class AttributePrecision:
    """Of the share `top` of guesses of a column with the largest confidence, the share that is right (PPV), 0 to 1.

    A guess is one of a run about an example of a kind, among runs with the examples, or among runs without them. The
    label `guess` is `weighted`, argmax of prior(v) p(y | v) of `attribute_inference` with that value, normalised, as
    confidence. Or it is `imputed`, with the probability of the imputation. With `mode`, the base rate, all guesses
    have the same confidence. A guess that ties with the last one counts in part.

    - `attribute_precision`: over runs with the examples, and with `statistic` = `out` over runs without them.
    - `attribute_precision_gain`: their difference, null 0. p in the summary is from coins that are dealt again, with a
      new selection for each deal.

    Intervals are over runs and examples, with the selection as it is. Where all selected guesses are right, or none is,
    a precision has Wilson's interval. Its trials are the runs, or the selected examples if these are fewer. A gain of 0
    between two such sides has no interval. In simulations, at least 95 % of the intervals contained the true precision.
    Here n counts the examples that are selected in some run. Pairs without a value, as of a diverged model, do not
    count.

    Fields:
        top: The share of guesses that are selected, at least one of them.

    >>> AttributePrecision().reads_signals
    ('attribute_weighted', 'attribute_imputed', 'attribute_mode', 'attribute_confidence')

    Reference: Jayaraman and Evans (2022), Are attribute inference attacks just imputation?
    """

    measures: ClassVar[tuple[Measure, ...]] = _MEASURES
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "guess",
            "text",
            "how the attribute is guessed",
            (("weighted", "from the model"), ("imputed", "imputed"), ("mode", "mode, the base rate")),
        ),
    )
    reads_signals: ClassVar[tuple[str, ...]] = (*GUESSES.values(), "attribute_confidence")

    top: Annotated[float, Gt(0), Le(1)] = 0.1

    @property
    def min_runs(self) -> int:
        """One in run and one out run."""
        return 2

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind and guess, both sides and their difference."""
        estimates: list[Estimate] = []
        for guess, name in GUESSES.items():
            if name not in view.signals:
                continue
            right = mean(view.signals[name], axis=1)
            stored = view.signals.get(f"attribute_confidence.{guess}")
            confidence = np.where(np.isnan(right), np.nan, 1.0) if stored is None else mean(stored, axis=1)
            for kind in view.audit.kinds:
                rows = np.flatnonzero(view.audit.kind == kind)
                estimates += self._of_kind(view, kind, rows, guess, right[:, rows], confidence[:, rows])
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None."""
        return ()

    def _of_kind(
        self, view: View, kind: str, rows: IntArray, guess: str, right: FloatArray, confidence: FloatArray
    ) -> list[Estimate]:
        coins, is_there = view.audit.is_in[:, rows], np.isfinite(right) & np.isfinite(confidence)
        is_there &= view.audit.owner_in[:, rows]
        weights = [surest(confidence, is_there & side, self.top) for side in (coins, ~coins)]
        if not all(part.any() for part in weights):
            return []
        values = np.where(is_there, right, 0.0)
        shares = [part / part.sum() for part in weights]
        means = [float((part * values).sum()) for part in shares]
        plain, gain = self.measures
        parts = [
            (plain, None, means[0], shares[0]),
            (plain, "out", means[1], shares[1]),
            (gain, None, means[0] - means[1], shares[0] - shares[1]),
        ]
        p, redeals = self._p(view, rows, values, confidence, is_there)
        return [
            Estimate(
                metric=measure.name,
                kind=kind,
                labels=Labels.of(guess=guess, statistic=statistic),
                value=value,
                influence=place_among(influence(counted, values), rows, len(view.audit)),
                null=measure.null,
                bounds=measure.range,
                n=int((counted != 0).any(axis=0).sum()),
                p=p if measure is gain else math.nan,
                redeals=redeals if measure is gain else 0,
                signed=True,
                is_share=measure is plain,
            )
            for measure, statistic, value, counted in parts
        ]

    def _p(
        self, view: View, rows: IntArray, values: FloatArray, confidence: FloatArray, is_there: BoolArray
    ) -> tuple[float, int]:
        """p of the difference, in the summary, and the deals that it is from."""
        if view.round is not None:
            return math.nan, 0
        deals = deals_of(view.redeals, rows, DEALS)
        gaps = np.array([precision_gap(values, confidence, is_there, coins, self.top) for coins in deals])
        # sums of the same weights in another order are equal but for rounding
        return two_sided(gaps.round(12)) if len(gaps) > 1 else math.nan, len(gaps) - 1


def surest(confidence: FloatArray, is_there: BoolArray, top: float) -> FloatArray:
    """(R, n) the weight of each pair among the k = max(1, top × pairs) of largest confidence: 1, 0, or a part for ties.

    >>> surest(np.array([[0.9, 0.5, 0.5, 0.1]]), np.ones((1, 4), dtype=bool), 0.5).tolist()
    [[1.0, 0.5, 0.5, 0.0]]
    """
    weights = np.zeros(confidence.shape)
    among = confidence[is_there]
    if not len(among):
        return weights
    count = max(1.0, top * len(among))
    threshold = np.partition(among, len(among) - math.ceil(count))[len(among) - math.ceil(count)]
    is_above, is_tied = is_there & (confidence > threshold), is_there & (confidence == threshold)
    weights[is_above] = 1.0
    weights[is_tied] = (count - is_above.sum()) / is_tied.sum()
    return weights


def precision_gap(
    values: FloatArray, confidence: FloatArray, is_there: BoolArray, coins: BoolArray, top: float
) -> float:
    """The precision among pairs in, minus that among pairs out; NaN where a side has no pair."""
    sides = []
    for side in (coins, ~coins):
        weights = surest(confidence, is_there & side, top)
        total = weights.sum()
        sides.append(float((weights * values).sum() / total) if total else math.nan)
    return sides[0] - sides[1]
