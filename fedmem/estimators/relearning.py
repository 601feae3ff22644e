"""Relearning: how fast forgotten examples are learnt again, by runs that once trained on them and by others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, Influence, View
from fedmem.contracts.evidence import TRAINED
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Labels, Level, Reading
from fedmem.estimation.coin_groups import num_clusters, over_independent_draws
from fedmem.estimation.crossings import crossing_span, rising
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.statistics import in_minus_out
from fedmem.estimation.two_way import half_width, interval, of_difference, place_among


@dataclass(frozen=True, kw_only=True)
class Relearning:
    """Rounds of ordinary training with forgotten examples back, until half of their memorisation returns.

    In a phase with `relearn`, every run trains on the examples: runs that once trained on them (in), and runs that
    never did (out). If nothing is left of an example, both learn it equally fast. A model that only hides a memory
    gets it back sooner. All values are at the aggregate, with p_t the probability of the label after t rounds:

    - `relearning_time`: the first observed t at which the mean p_t is at least

          L = mean over out runs of p_0  +  ½ (memorisation before forgetting).

      The mean is over in runs or over out runs (label `coin`), and L is the same for both. The curve is made
      non-decreasing first (isotonic regression, least squares). 0 says that more than half was never forgotten. It
      is ∞ (never) where L is not reached, and not the last round. Undefined where memorisation before forgetting is not
      above 0 by its interval: nothing can return then;
    - `relearning_lead` = time of out runs − time of in runs, in rounds. 0 after perfect unlearning, above 0 where
      something was left. It is ∞ where only in runs reach L, and undefined where neither side does;
    - `relearning_gain`: the area between both curves, divided by the rounds of the phase. It is the mean over rounds of
      in minus out, by trapezia between observed rounds. It uses all rounds and has a p, so it is the sharper test. 0
      after perfect unlearning. It contains what is left at round 0.

    Intervals of times contain the rounds since the observed point before, because nothing is known about rounds
    between. Their ends come from tests at each point, at 95 % (`estimation/crossings.py`), in which L counts as
    estimated. That of the lead is of two intervals of 97.5 %. An end of ∞ says that half may never return.

    The models from before forgetting are those with which the phase before began. They are stored as the set
    `audit_trained` at round 0. Runs without a model at one of the observed rounds are left out.

    Fields: none.

    >>> Relearning().needs_relearning
    True
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="relearning_time",
            title="rounds until half of the memory returns",
            means="The first observed round with the examples back at which half of the memorisation before forgetting "
            "is there. It counts from what runs without the examples answer at round 0.",
            is_not="Runs without the examples learn them too: compare both, see `relearning_lead`.",
            unit="rounds",
            range=(0.0, math.inf),
            direction="neither",
            digits=0,
        ),
        Measure(
            name="relearning_lead",
            title="lead in relearning",
            means="Rounds until half of the memory returns, in runs that never had it minus in runs that once had it.",
            is_not="0 is no proof that nothing is left: see the interval, and `relearning_gain`.",
            unit="rounds",
            null=0.0,
            direction="neither",
            digits=0,
        ),
        Measure(
            name="relearning_gain",
            title="area between curves of relearning",
            means="The probability of the label, as a mean over the rounds of relearning. It is that of runs that once "
            "trained on the examples minus that of others.",
            is_not="It is not what was left before relearning: that is `memorisation` of the phase before.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
        ),
    )
    levels: ClassVar[tuple[Level, ...]] = ("global",)
    min_runs: ClassVar[int] = 2
    counts_groups: ClassVar[bool] = True
    needs_phase: ClassVar[bool] = True
    needs_relearning: ClassVar[bool] = True
    reads_relearning: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """The area between the curves, per kind that is learnt again."""
        estimates = []
        for curve in _curves(view):
            area = np.full(view.audit.is_in.shape, np.nan)
            area[:, curve.rows] = curve.area()
            estimates.append(
                Estimate(
                    metric="relearning_gain",
                    kind=curve.kind,
                    labels=Labels.of(statistic="probability"),
                    value=curve.gain(area[:, curve.rows]),
                    influence=place_among(of_difference(area[:, curve.rows], curve.is_in), curve.rows, len(view.audit)),
                    null=0.0,
                    bounds=(-1.0, 1.0),
                    p=of_means(area, curve.rows, view.redeals),
                    redeals=num_redeals(view.redeals, curve.rows),
                    n=len(curve.rows),
                    examples=curve.rows,
                    signed=True,
                )
            )
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Times of both sides and the lead, per kind that is learnt again."""
        return [(None, reading) for curve in _curves(view) for reading in _times(view, curve)]


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """Probabilities of the label on the n examples `rows` of a kind, all in the same runs.

    Attributes:
        kind: Of the examples.
        rows: (n,) the examples.
        rounds: (S,) the observed rounds, from 0 on.
        values: (S, R, n) NaN in runs without a model at some round.
        trained: (R, n) before forgetting, NaN in the same runs.
        is_in: (R, n) which runs had trained on each.
    """

    kind: str
    rows: IntArray
    rounds: IntArray
    values: FloatArray
    trained: FloatArray
    is_in: BoolArray

    def gain(self, values: FloatArray) -> float:
        """The mean over examples of the mean (R, n) over in runs minus that over out runs."""
        return float(in_minus_out(values, self.is_in).mean())

    def area(self) -> FloatArray:
        """(R, n) the mean over rounds, by trapezia."""
        widths = np.diff(self.rounds)[:, None, None]
        area: FloatArray = ((self.values[1:] + self.values[:-1]) / 2 * widths).sum(0) / widths.sum()
        return area

    def distances(self, *, inside: bool) -> FloatArray:
        """(S, R, n) values whose gain is the distance of one side from the level L at each round.

        Without memorisation in out runs at round 0, L − p_0 is half of what the runs had before.
        """
        start = self.values[0]
        sides = np.where(self.is_in, self.values, start) if inside else np.where(self.is_in, 0.0, start - self.values)
        return sides - self.trained / 2


def _curves(view: View) -> Iterator[_Curve]:
    """The curve of each kind that is learnt again, in the summary at the aggregate."""
    relearnt, before = view.audit.relearnt, view.sets.get(TRAINED)
    if view.round is not None or view.level != "global" or relearnt is None or before is None:
        return
    if view.series is None or view.initial is None:
        return
    is_read: BoolArray = np.asarray(~np.isnan(view.margin).all((0, 1)))
    margin = np.full((view.audit.runs, before.size), np.nan)
    for block in before.blocks:
        margin[block.run] = block.margin
    trained = _probability(margin)
    values = np.concatenate([np.exp(-view.initial)[None], _probability(view.series.margin())])
    rounds = np.concatenate([[0], view.series.rounds])
    observed = ~np.isnan(values).all((1, 2))
    values, rounds = values[observed], rounds[observed]
    complete = ~np.isnan(values).any(0) & ~np.isnan(trained)
    values, trained = np.where(complete, values, np.nan), np.where(complete, trained, np.nan)
    is_in = view.audit.is_in
    has_both = (complete & is_in).any(0) & (complete & ~is_in).any(0)
    for kind in view.audit.kinds:
        rows = np.flatnonzero((view.audit.kind == kind) & relearnt & is_read & has_both)
        if len(rows) and len(rounds) > 1:
            yield _Curve(
                kind=kind,
                rows=rows,
                rounds=rounds,
                values=values[:, :, rows],
                trained=trained[:, rows],
                is_in=is_in[:, rows],
            )


def _probability(margin: FloatArray) -> FloatArray:
    """The probability of the label: the margin is its log odds; NaN in, NaN out."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -margin))


@dataclass(frozen=True, kw_only=True)
class _Time:
    """When one side reaches the level, and the ends of its intervals of 95 % and 97.5 %."""

    value: float
    span: tuple[float, float]
    wider: tuple[float, float]


def _times(view: View, curve: _Curve) -> Iterator[Reading]:
    """The times of in runs and of out runs, and the lead."""
    before = curve.gain(curve.trained), _over_draws(view, of_difference(curve.trained, curve.is_in), curve.rows)
    clusters = num_clusters(view.audit, curve.rows, np.asarray(~np.isnan(curve.trained).all(1)))
    is_memorised = before[0] - half_width(*before, clusters) > 0
    inside, outside = (
        _time(view, curve, curve.distances(inside=side), clusters) if is_memorised else _UNKNOWN
        for side in (True, False)
    )
    n, subject = len(curve.rows), curve.kind
    for coin, time in (("in", inside), ("out", outside)):
        low, high = time.span
        labels = Labels.of(coin=coin)
        yield Reading(
            metric="relearning_time", value=time.value, low=low, high=high, n=n, subject=subject, labels=labels
        )
    is_never = math.isinf(inside.value) and math.isinf(outside.value)
    lead = math.nan if is_never else outside.value - inside.value
    low = high = math.nan
    if not math.isnan(lead):
        low, high = outside.wider[0] - inside.wider[1], outside.wider[1] - inside.wider[0]
    yield Reading(metric="relearning_lead", value=lead, low=low, high=high, n=n, subject=subject)


def _time(view: View, curve: _Curve, distances: FloatArray, clusters: int) -> _Time:
    """When the distance (S, R, n) from the level is 0 or more."""
    gaps = np.array([curve.gain(values) for values in distances])
    reached = np.flatnonzero(rising(gaps) >= -_ROUNDING)
    contributions = [_over_draws(view, of_difference(values, curve.is_in), curve.rows) for values in distances]
    position = int(reached[0]) if len(reached) else len(gaps)
    span, wider = (
        _span(
            curve.rounds,
            position,
            [
                interval(gap, part, clusters, level=level, scale=1.0)
                for gap, part in zip(gaps, contributions, strict=True)
            ],
        )
        for level in (0.95, 0.975)
    )
    return _Time(value=float(curve.rounds[position]) if len(reached) else math.inf, span=span, wider=wider)


def _span(rounds: IntArray, position: int, distances: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The rounds that the interval contains; it begins after the observed round before, and may have no end."""
    found = crossing_span(distances)
    if found is None:
        return math.nan, math.nan
    first, last = min(*found, position), max(*found, position)
    low = float(rounds[first - 1]) + 1 if first else 0.0
    return low, float(rounds[last]) if last < len(rounds) else math.inf


def _over_draws(view: View, contributions: Influence, rows: IntArray) -> Influence:
    """Contributions of what was drawn independently: coin rows and coin groups."""
    return over_independent_draws(place_among(contributions, rows, len(view.audit)), view.audit, rows)


_UNKNOWN = _Time(value=math.nan, span=(math.nan, math.nan), wider=(math.nan, math.nan))
"""No time, where nothing was memorised before."""

_ROUNDING = 1e-12
"""A distance below 0 by less than this is 0."""
