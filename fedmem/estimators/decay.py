"""Decay: how much of a memory is left at the aggregate, by the rounds since the example was last trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import MembershipAttack, Signals
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.families import kind_of
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.series import explain_unobserved
from fedmem.contracts.validation_of_measures import scores_of
from fedmem.errors import ComponentError
from fedmem.estimation.crossings import crossing_span
from fedmem.estimation.randomisation import num_redeals, of_means
from fedmem.estimation.rank_series import exposures_of
from fedmem.estimation.since_use import SinceUse, pair_with_start, uses, uses_of_some_runs
from fedmem.estimation.statistics import in_minus_out, means_by_coin
from fedmem.estimation.twins import over_coin_rows, sets_without_twins
from fedmem.estimation.two_way import (
    FEWEST,
    combine,
    half_width,
    interval,
    of_difference,
    place_among,
    ratio_interval,
)
from fedmem.guards.guarding import Guard

_IS_NOT = (
    "Values at different numbers of rounds are about different examples: each is over the n examples whose owner "
    "stayed away for so long."
)


def _level_measure(name: str, title: str, of: str, **facts: Any) -> Measure:
    return Measure(
        name=name,
        title=title,
        means=f"{of}, in runs minus out runs, by the number of rounds since the example was last trained on.",
        is_not=f"{_IS_NOT} Their change within examples is `{name}_change`.",
        null=0.0,
        against="since",
        **facts,
    )


def _change_measure(name: str, title: str, of: str, **facts: Any) -> Measure:
    return Measure(
        name=f"{name}_change",
        title=f"{title}, change",
        means=f"{of}, in runs minus out runs: the value so many rounds after the last use, minus that in the "
        "round of this use.",
        is_not="It is not relative to the value in the round of the use: see `decay_share`.",
        null=0.0,
        direction="neither",
        against="since",
        **facts,
    )


_SHARE: Mapping[str, Any] = {"unit": "share", "range": (-1.0, 1.0)}
_QUANTITIES: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("decay", "decay of memorisation", "The probability of the label", _SHARE),
    ("decay_exposure", "decay of exposure", "Exposure of canaries", {"unit": "bits", "digits": 2}),
    ("decay_score", "decay of the attack's score", "The score of a membership attack", {"unit": "nats", "digits": 2}),
)


@dataclass(frozen=True, kw_only=True)
class Decay:
    """Forgetting of examples after their last use: the aggregate, and the model that the owner still has, by rounds.

    An example is used in a round if its owning client takes part and the example is in its window (`start`, `stop`).
    `since` = d counts the rounds since its last use. A value at d is over all uses that no other use follows for d
    rounds. The means over these uses of an example, over in runs and over out runs come first. Their difference
    is then averaged over the examples with such a use, n of them. Nothing is extrapolated.

    - `decay`: memorisation by probability of the label, at the aggregate d rounds later. At the owner it is that of the
      owner's own model after the use, which the owner has while it is away. Both are about the same uses;
    - `decay_exposure`: of exposure in bits, for canaries; `decay_score`: of the score of `attack`, if there is one. The
      attack is given the margins of all examples of a kind at each round. A score depends on the random inclusion of
      other runs, so it has neither p nor retention. Without memorisation its mean may lie a little below 0;
    - `<name>_change`: the value at d minus that at d = 0 *of the same uses*, at the aggregate. It compares each example
      with itself. `decay` alone does not: owners that come often are the population at small d only;
    - `decay_share`: Σ value at d / Σ value at d = 0 of the same uses, at the aggregate, with Fieller's interval.
      Undefined where the value at d = 0 is not significant;
    - `half_life`: the first d at which the value is at most half of that at d = 0 of the same uses. Only d with eight
      examples or more count. The interval is from tests at each d (`estimation/crossings.py`). Undefined where the
      interval has no end, for example where the curve does not reach a half.

    So two losses stand in one table. *Dilution* is the step from the owner to the aggregate at d = 0. *Decay* is what
    follows at the aggregate, d ≥ 1. Retention with the label `since` is both: the share of the owner's effect that
    the aggregate has d rounds later.

    With several clients that hold an example its uses are not known from its owner, and it is left out. Intervals are
    from two-way clusters, runs and examples. All values are in the summary. Every round must be observed at both
    levels, since a participation between observed rounds would go unseen.

    Fields:
        longest: The largest number of rounds since the last use.
        attack: A membership attack that reads margins and random inclusion alone, such as `lira`; none by default.

    >>> Decay().needs_every_round
    True

    Reference: Jagielski et al. (2023), Measuring forgetting of memorized training examples.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        *(_level_measure(name, title, of, **facts) for name, title, of, facts in _QUANTITIES),
        *(
            _change_measure(name, title, of, **{**facts, **({"range": (-2.0, 2.0)} if facts is _SHARE else {})})
            for name, title, of, facts in _QUANTITIES
        ),
        Measure(
            name="decay_share",
            title="share left of memorisation",
            means="Memorisation by probability so many rounds after the last use, divided by that in the round of "
            "this use. Sums over the same examples are divided.",
            is_not="It leaves out what averaging removes at once: see retention with the label `since` = 0.",
            digits=2,
            against="since",
        ),
        Measure(
            name="half_life",
            title="half-life of memorisation",
            means="The first number of rounds since the last use after which at most half of the memorisation by "
            "probability is left.",
            is_not="It is not a rate: what is left after it need not halve again in the same time.",
            unit="rounds",
            range=(1.0, math.inf),
            direction="neither",
            digits=0,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (Label("since", "whole", "rounds since the example was last trained on"),)
    min_runs: ClassVar[int] = 2
    needs_every_round: ClassVar[bool] = True
    gives_margins_alone: ClassVar[bool] = True

    longest: Annotated[int, Gt(0)] = 10
    attack: MembershipAttack | None = None

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per quantity, kind and number of rounds: the values and, at the aggregate, their changes."""
        return [
            estimate
            for name, values in self._quantities(view)
            for since in self._distances(values)
            for kind in view.audit.kinds
            for estimate in _of_kind(view, name, kind, values, self._labels(name, since))
        ]

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Shares of memorisation that are left, and the half-life, at the aggregate."""
        if view.level != "global":
            return ()
        readings: list[Reading] = []
        for name, values in self._quantities(view):
            if name == _QUANTITIES[0][0]:
                for kind in view.audit.kinds:
                    halves = [_half_of_kind(view, kind, values, since) for since in self._distances(values)]
                    ratios = [ratio for half in halves[1:] if half is not None for ratio in half.share(view)]
                    readings += [*ratios, *_half_life(view, halves)]
        return [(None, reading) for reading in readings]

    def _labels(self, name: str, since: int) -> Labels:
        of_score = self.attack is not None and name == _QUANTITIES[2][0]
        return Labels.of(since=since, attack=kind_of(self.attack) if of_score else None)

    def _distances(self, values: FloatArray) -> range:
        return range(min(self.longest, len(values) - 1) + 1)

    def _quantities(self, view: View) -> Iterator[tuple[str, FloatArray]]:
        """Name and values (S, R, m) of each quantity; none but in the summary, at the aggregate and at the owner.

        Raises:
            ComponentError: if rounds are missing, or models of clients cannot be compared.
        """
        if view.round is not None or view.series is None or view.place == "others":
            return
        hidden: BoolArray = np.asarray(np.isnan(view.margin).all((0, 1)))
        series = view.series.hide(hidden)
        is_every = series.rounds.tolist() == list(range(1, len(series.rounds) + 1))
        if series.participated is None or not is_every:
            raise ComponentError("observe", explain_unobserved("decay"))
        margin = series.margin()
        with np.errstate(invalid="ignore"):  # NaN in, NaN out
            yield _QUANTITIES[0][0], np.exp(-np.logaddexp(0.0, -margin))  # the margin is the log odds of the label
        bits = exposures_of(view)
        if bits is not None:
            bits[:, :, hidden] = np.nan
            yield _QUANTITIES[1][0], bits
        if self.attack is not None:
            yield _QUANTITIES[2][0], np.stack([self._scores(view, of_round) for of_round in margin])

    def _scores(self, view: View, margin: FloatArray) -> FloatArray:
        """(R, m) the scores of the attack from margins (R, m) of one round, kind by kind, without help of twins."""
        scores = np.full(margin.shape, np.nan)
        assert self.attack is not None
        with Guard("attack", self.attack, "scores") as guard:
            for kind in view.audit.kinds:
                rows = np.flatnonzero((view.audit.kind == kind) & ~np.isnan(margin).all(0))
                for runs in sets_without_twins(view.audit) if len(rows) else ():
                    where = np.ix_(runs, rows)
                    signals = Signals(margin=margin[where], is_in=view.audit.is_in[where])
                    scores[where] = scores_of(guard, self.attack.scores(signals), signals.margin)
        return scores


def _since_use(view: View, values: FloatArray, since: int, *, moves: bool = True) -> SinceUse:
    """The values (S, R, m) so many rounds after the last use, and at the use."""
    assert view.series is not None
    used, ends = uses(view.series, view.audit), uses_of_some_runs(view.series, view.audit)
    return pair_with_start(values, used, since, moves=moves, ends=ends)


def _rows(view: View, kind: str, values: FloatArray) -> IntArray:
    """The examples of a kind with a value over in runs and over out runs."""
    inside, outside = (side[0] for side in means_by_coin(values, view.audit.is_in, np.ones((1, view.audit.runs))))
    return np.flatnonzero((view.audit.kind == kind) & ~np.isnan(inside - outside))


def _of_kind(view: View, name: str, kind: str, values: FloatArray, labels: Labels) -> Iterator[Estimate]:
    """The value of a kind and, at the aggregate, its change since d = 0."""
    since = labels.integer("since")
    is_global = view.level == "global"
    found = _since_use(view, values, since, moves=is_global)
    changes = [(f"{name}_change", found.now - found.at_start)] if is_global and since else []
    for metric, of_runs in ((name, found.now), *changes):
        rows = _rows(view, kind, of_runs)
        if not len(rows):
            continue
        columns, coins = of_runs[:, rows], view.audit.is_in[:, rows]
        inside, outside = (side[0] for side in means_by_coin(columns, coins, np.ones((1, len(columns)))))
        has_p = name != _QUANTITIES[2][0]
        declared = next(measure for measure in Decay.measures if measure.name == metric)
        yield Estimate(
            metric=metric,
            kind=kind,
            labels=labels,
            value=float((inside - outside).mean()),
            influence=place_among(of_difference(columns, coins), rows, len(view.audit)),
            null=0.0,
            bounds=declared.range,
            p=of_means(of_runs, rows, view.redeals) if has_p else math.nan,
            redeals=num_redeals(view.redeals, rows) if has_p else 0,
            n=len(rows),
            examples=rows,
            signed=metric != name or not has_p,
        )


@dataclass(frozen=True, kw_only=True)
class _Half:
    """Memorisation of a kind d rounds after use, and at the use, on the same n examples (R, n)."""

    kind: str
    since: int
    now: FloatArray
    at_start: FloatArray
    is_in: BoolArray
    clusters: int

    def value(self, values: FloatArray) -> float:
        """The mean over examples of in minus out."""
        return float(in_minus_out(values, self.is_in).mean())

    def share(self, view: View) -> Iterator[Reading]:
        """Value now / value at the start; NaN where the latter is not above 0 by its interval."""
        now, start = (
            (self.value(values), over_coin_rows(of_difference(values, self.is_in), view.audit))
            for values in (self.now, self.at_start)
        )
        low = high = value = math.nan
        is_resolved = start[0] - half_width(*start, self.clusters) > 0
        if is_resolved:
            value, (low, high) = now[0] / start[0], ratio_interval(now, start, self.clusters)
        labels = Labels.of(since=self.since)
        n = self.now.shape[1]
        yield Reading(metric="decay_share", value=value, low=low, high=high, n=n, subject=self.kind, labels=labels)

    def distance(self, view: View) -> tuple[float, float]:
        """The interval of half of the value at the start minus the value now: above 0 where it has halved."""
        parts = combine(
            (factor, of_difference(values, self.is_in)) for factor, values in ((0.5, self.at_start), (-1.0, self.now))
        )
        value = self.value(self.at_start) / 2 - self.value(self.now)
        return interval(value, over_coin_rows(parts, view.audit), self.clusters, scale=abs(self.value(self.at_start)))


def _half_of_kind(view: View, kind: str, values: FloatArray, since: int) -> _Half | None:
    """The values of a kind at d and at the use; None without an example."""
    found = _since_use(view, values, since)
    rows = _rows(view, kind, found.now)
    if not len(rows):
        return None
    answered = ~np.isnan(found.now[:, rows]).all(1)
    return _Half(
        kind=kind,
        since=since,
        now=found.now[:, rows],
        at_start=found.at_start[:, rows],
        is_in=view.audit.is_in[:, rows],
        clusters=min(len(np.unique(view.audit.coin_rows[answered])), len(rows)),
    )


def _half_life(view: View, halves: Sequence[_Half | None]) -> Iterator[Reading]:
    """The half-life of a kind, where there are enough examples; NaN where its interval has no end."""
    counted: list[_Half] = []
    for half in halves:
        if half is None or half.now.shape[1] < FEWEST:
            break
        counted.append(half)
    if len(counted) < 2:
        return
    start = counted[0]
    of_start = over_coin_rows(of_difference(start.at_start, start.is_in), view.audit)
    value = low = high = math.nan
    if start.value(start.at_start) - half_width(start.value(start.at_start), of_start, start.clusters) > 0:
        span = crossing_span([half.distance(view) for half in counted])
        below = [half.since for half in counted if half.value(half.now) <= half.value(half.at_start) / 2]
        if span is not None and below and span[1] < len(counted):
            value = float(below[0])
            low, high = (float(counted[end].since) for end in span)
            low, high = min(low, value), max(high, value)
    yield Reading(
        metric="half_life",
        value=value,
        low=low,
        high=high,
        n=counted[-1].now.shape[1],
        subject=start.kind,
    )
