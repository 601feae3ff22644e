"""Onset: the first round, or participation of the owning client, at which memorisation is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.series import Series
from fedmem.estimation.crossings import crossing_span, first_at_half
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.single_examples import upper_p
from fedmem.estimation.statistics import in_minus_out, means_by_coin, welch_columns
from fedmem.estimation.twins import average_twins, coins_of_rows, over_coin_rows
from fedmem.estimation.two_way import interval, of_difference, of_ins

_NEVER = math.inf
_RANGE = (1.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Onset:
    """When the memorisation of a kind of example begins: at the aggregate by rounds, at the owner by participations.

    `onset` is the first point at which the isotonic regression of memorisation by probability (non-decreasing, least
    squares) is at least half of its final value. Memorisation of a kind is the mean over examples of the mean over in
    runs minus the mean over out runs. `onset` is ∞ (never) where there is no memorisation at the last point. Then p,
    from inclusion that is drawn again, is above 0.05, or the mean over in runs is the lower one.

    `learning_onset` is the same for the mean probability of the label over in runs minus that of the initial model. It
    also shows when examples are learnt that are right without being trained on. Never means here that the interval of
    the final value is not above 0. It needs the initial model, which is observed by default.

    The label `clock` says what is counted:

    - `rounds`: the observed rounds, at the aggregate. The value is a round;
    - `participations`: the rounds in which the owning client took part and the example was in its window. The value is
      their number, from 1 on. It is at the owner and at the aggregate of the same rounds, with the difference of both.
      It needs `observe: {every: 1}`. Participations are counted up to the largest number that half of the examples of a
      kind reach. Examples with fewer have no onset and are left out, so that all points have the same examples.

    Intervals are whole numbers of rounds or participations, both ends included. They also contain the rounds since the
    observed point before, because nothing is known about rounds between. An interval inverts tests at single points,
    with two-way clusters (`estimation/crossings.py`). Its level is 95 % where true memorisation does not fall. Where it
    falls, as after `stop`, the onset only describes the curve: a falling curve has its onset at the first point. The
    interval of a difference combines two intervals of 97.5 %, so its level is at least 95 %.

    Single examples: `onset_share` is the share with memorisation at the last point, by an exact p of at most 0.05 each.
    One in twenty has it by chance. Only these examples have an `onset` of their own, with Welch's interval inverted in
    the same way. With 16 runs it often spans most rounds: compare kinds, not examples. There is no estimate for
    censored examples (Kaplan-Meier), since an example that is seen for less time has another final value.

    Fields: none.

    >>> Onset().min_runs
    8

    References: Barlow, Bartholomew, Bremner and Brunk (1972) on isotonic regression. Arpit et al. (2017) on learning
    regularities before noise.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="onset",
            title="onset of memorisation",
            means="The first round or participation at which memorisation by probability is at least half of its final "
            "value. It is infinite (never) where there is no memorisation at the end.",
            is_not="A late onset does not mean little memorisation: the onset is relative to the final value.",
            range=_RANGE,
            direction="neither",
            digits=0,
        ),
        Measure(
            name="learning_onset",
            title="onset of learning",
            means="The onset of the probability of the label over runs with the example, minus that of the initial "
            "model. It is infinite (never) where the final value is not above 0.",
            is_not="It is not memorisation: examples are also learnt from others like them.",
            range=_RANGE,
            direction="neither",
            digits=0,
        ),
        Measure(
            name="onset_share",
            title="share of examples with an onset",
            means="The share of examples whose own memorisation at the last point has an exact p of at most 0.05. "
            "Without memorisation its expectation is at most 0.05.",
            is_not="The other examples may be memorised: few runs do not show it.",
            unit="share",
            range=(0.0, 1.0),
            digits=2,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "clock",
            "text",
            "what counts the models of a sequence: rounds, or participations of a client",
            titles=(("rounds", "by rounds"), ("participations", "by participations")),
        ),
    )
    min_runs: ClassVar[int] = 8

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: an onset is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Per kind and clock: onsets, their differences between kinds, the share, and onsets of single examples."""
        readings: list[Reading] = []
        curves = list(_curves(view))
        onsets = [_of_kind(view, curve) for curve in curves]
        for curve, of_curve in zip(curves, onsets, strict=True):
            readings += [onset.reading() for onset in of_curve]
            readings += _of_examples(view, curve)
        for first, second in combinations([onset for of_curve in onsets for onset in of_curve], 2):
            if (first.metric, first.clock) == (second.metric, second.clock):
                readings += first.minus(second, first.kind, contrast="kinds", minus=second.kind)
        return [(None, reading) for reading in readings]

    def readings_of_places(self, views: Sequence[View]) -> Sequence[tuple[int, Reading]]:
        """Onset by participations at the owner minus that at the aggregate, per kind."""
        places = {(view.level, view.place): number for number, view in enumerate(views)}
        if not {("local", "owner"), ("global", "")} <= set(places):
            return ()
        local, whole = (
            {
                (onset.metric, onset.kind, onset.clock): onset
                for curve in _curves(views[places[place]])
                for onset in _of_kind(views[places[place]], curve)
            }
            for place in (("local", "owner"), ("global", ""))
        )
        return [
            (places["global", ""], reading)
            for key, onset in local.items()
            if key in whole and whole[key].n == onset.n
            for reading in onset.minus(whole[key], onset.kind, contrast="levels", minus="global")
        ]


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """Probabilities of the label at S points, on the n examples `rows` of a kind, all in the same runs.

    Attributes:
        clock: What counts the points.
        kind: Of the examples.
        rows: (n,) the examples.
        points: (S,) the number of each point by the clock.
        values: (S, R, n) NaN in runs without a model at some point.
    """

    clock: str
    kind: str
    rows: IntArray
    points: IntArray
    values: FloatArray


@dataclass(frozen=True, kw_only=True)
class _Span:
    """The smallest and the largest point that an interval contains."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class _OnsetOfKind:
    """An onset with its interval, and that from which intervals of differences are made."""

    metric: str
    kind: str
    clock: str
    value: float
    span: _Span
    wider: _Span
    n: int

    def reading(self) -> Reading:
        """The row of it."""
        return Reading(
            metric=self.metric,
            value=self.value,
            low=self.span.low,
            high=self.span.high,
            n=self.n,
            subject=self.kind,
            labels=Labels.of(clock=self.clock),
        )

    def minus(self, other: _OnsetOfKind, subject: str, *, contrast: str, minus: str) -> list[Reading]:
        """The row of a difference; none where one of both is never there or undefined."""
        if not math.isfinite(self.value - other.value):
            return []
        return [
            Reading(
                metric=f"{self.metric}.difference",
                value=self.value - other.value,
                low=self.wider.low - other.wider.high,
                high=self.wider.high - other.wider.low,
                n=self.n + (other.n if contrast == "kinds" else 0),
                subject=subject,
                labels=Labels.of(clock=self.clock, contrast=contrast, minus=minus),
            )
        ]


def _curves(view: View) -> Iterator[_Curve]:
    """The curves of each clock and kind that a place has, in the summary."""
    if view.round is not None or view.series is None or view.place == "others":
        return
    hidden: BoolArray = np.asarray(np.isnan(view.margin).all((0, 1)))
    series = view.series.hide(hidden)
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        p = np.exp(-np.logaddexp(0.0, -series.margin()))  # the margin is the log odds of the label
    for kind in view.audit.kinds:
        of_kind = np.flatnonzero((view.audit.kind == kind) & ~hidden)
        if view.level == "global":
            is_read = ~np.isnan(p[:, :, of_kind]).all((1, 2))
            yield from _curve("rounds", kind, of_kind, series.rounds[is_read], p[is_read][:, :, of_kind], view)
        if series.participated is not None and series.step == 1:
            rows, places = _participations(series, view, of_kind)
            values = p[places, :, rows].transpose(0, 2, 1)
            yield from _curve("participations", kind, rows, 1 + np.arange(len(values)), values, view)


def _participations(series: Series, view: View, of_kind: IntArray) -> tuple[IntArray, IntArray]:
    """(n,) examples with as many participations as half of the kind, and (S, n) the positions of these rounds."""
    assert series.participated is not None
    rounds = series.rounds[:, None]
    is_used = (
        series.participated[:, of_kind] & (view.audit.start[of_kind] <= rounds) & (rounds <= view.audit.stop[of_kind])
    )
    counts = is_used.sum(0)
    some = np.sort(counts[counts > 0])[::-1]
    if not len(some):
        return np.zeros(0, np.int64), np.zeros((0, 0), np.int64)
    size = int(some[(len(some) - 1) // 2])
    chosen = np.flatnonzero(counts >= size)
    places = [np.flatnonzero(is_used[:, column])[:size] for column in chosen.tolist()]
    return of_kind[chosen], np.stack(places, axis=1)


def _curve(clock: str, kind: str, rows: IntArray, points: IntArray, values: FloatArray, view: View) -> Iterator[_Curve]:
    """The curve on the examples that have an in run and an out run with all models; none without any."""
    if not len(points) or not len(rows):
        return
    complete = ~np.isnan(values).any(0)
    coins = view.audit.is_in[:, rows]
    has_both = (complete & coins).any(0) & (complete & ~coins).any(0)
    if has_both.any():
        values = np.where(complete, values, np.nan)[:, :, has_both]
        yield _Curve(clock=clock, kind=kind, rows=rows[has_both], points=points, values=values)


def _of_kind(view: View, curve: _Curve) -> list[_OnsetOfKind]:
    """The onset of memorisation and, where the initial model was observed, that of learning."""
    is_in = view.audit.is_in[:, curve.rows]
    onsets = [_onset(view, curve, "onset", curve.values, lambda y: of_difference(y, is_in), _difference(is_in))]
    initial = None if view.initial is None else np.exp(-view.initial[:, curve.rows])
    if initial is not None and not np.isnan(initial).any():
        gained = curve.values - initial
        onsets.append(_onset(view, curve, "learning_onset", gained, lambda y: of_ins(y, is_in), _inside(is_in)))
    return onsets


def _difference(is_in: BoolArray) -> Callable[[FloatArray], float]:
    """The mean over examples of the mean over in runs minus that over out runs."""

    def value(values: FloatArray) -> float:
        return float(in_minus_out(values, is_in).mean())

    return value


def _inside(is_in: BoolArray) -> Callable[[FloatArray], float]:
    """The mean over examples of the mean over in runs."""
    return lambda values: float(means_by_coin(values, is_in, np.ones((1, len(values))))[0][0].mean())


def _onset(
    view: View,
    curve: _Curve,
    metric: str,
    values: FloatArray,
    contributions: Callable[[FloatArray], Influence],
    value: Callable[[FloatArray], float],
) -> _OnsetOfKind:
    """The onset of one quantity (S, R, n) of a kind."""
    audit = view.audit
    answered = ~np.isnan(values[-1]).all(1)
    clusters = min(len(np.unique(audit.coin_rows[answered])), len(curve.rows))

    def bounds(of_runs: FloatArray, level: float) -> tuple[float, float]:
        parts = over_coin_rows(contributions(of_runs), audit)
        scale = float(np.nanmax(np.abs(values[-1]), initial=0.0))
        return interval(value(of_runs), parts, clusters, level=level, scale=scale)

    if metric == "onset":
        state = _is_memorised(view, curve, value(values[-1]))
    else:
        low, _ = bounds(values[-1], _LEVEL)
        state = math.nan if math.isnan(low) else low > 0
    onset = _OnsetOfKind(
        metric=metric,
        kind=curve.kind,
        clock=curve.clock,
        value=_NEVER if state == 0 else math.nan,
        span=_UNKNOWN,
        wider=_UNKNOWN,
        n=len(curve.rows),
    )
    if state != 1:
        return onset
    position = first_at_half(np.array([value(point) for point in values]))
    span, wider = (
        _span(curve, position, [bounds(point - values[-1] / 2, level) for point in values])
        for level in (_LEVEL, _LEVEL_OF_TWO)
    )
    return replace(onset, value=float(curve.points[position]), span=span, wider=wider)


def _is_memorised(view: View, curve: _Curve, value: float) -> float:
    """1 where there is memorisation at the last point, 0 where there is none, NaN where no p could show it."""
    last = np.full(view.audit.is_in.shape, np.nan)
    last[:, curve.rows] = curve.values[-1]
    deals = num_redeals(view.redeals, curve.rows)
    if 2 / (deals + 1) > _LARGEST_P:
        return math.nan
    return float(value > 0 and of_means(last, curve.rows, view.redeals) <= _LARGEST_P)


def _span(curve: _Curve, position: int, distances: Sequence[tuple[float, float]]) -> _Span:
    """The points that the interval contains, from the distances to half of the final value."""
    found = crossing_span(distances)
    if found is None:
        return _UNKNOWN
    # the curve is above half of its final value at the last point, since that is above 0
    first, last = min(*found, position), min(max(*found, position), len(curve.points) - 1)
    return _Span(low=_after_previous(curve, first), high=float(curve.points[last]))


def _after_previous(curve: _Curve, position: int) -> float:
    """The first number of the clock after the observed point before."""
    return 1.0 + (float(curve.points[position - 1]) if position else 0.0)


def _of_examples(view: View, curve: _Curve) -> Iterator[Reading]:
    """The share of examples with memorisation at the last point, and the onset of each of these."""
    labels = Labels.of(clock=curve.clock)
    independent = np.stack([average_twins(point, view.audit) for point in curve.values])
    coins = coins_of_rows(view.audit)[:, curve.rows]
    chosen = np.flatnonzero(upper_p(independent[-1], coins) <= _LARGEST_P)
    yield Reading(
        metric="onset_share",
        value=len(chosen) / len(curve.rows),
        n=len(curve.rows),
        subject=curve.kind,
        labels=labels,
    )
    for column in chosen.tolist():
        is_in, of_one = coins[:, column], independent[:, :, column]
        inside, outside = (np.nanmean(of_one[:, side], axis=1) for side in (is_in, ~is_in))
        position = first_at_half(inside - outside)
        contrasts = (of_one - of_one[-1] / 2).T
        lows, highs = welch_columns(contrasts[is_in], contrasts[~is_in])
        span = _span(curve, position, list(zip(lows.tolist(), highs.tolist(), strict=True)))
        yield Reading(
            metric="onset",
            value=float(curve.points[position]),
            low=span.low,
            high=span.high,
            n=int((~np.isnan(of_one[-1])).sum()),
            subject=str(int(curve.rows[column])),
            labels=labels,
        )


_UNKNOWN = _Span(low=math.nan, high=math.nan)
"""No interval."""

_LEVEL = 0.95
_LEVEL_OF_TWO = 0.975
"""The levels of an interval, and of each of two from which the interval of a difference is made."""

_LARGEST_P = 0.05
"""The largest p of memorisation at the last point."""
