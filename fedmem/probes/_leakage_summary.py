"""Attacks on many victims summed up: means over victims and over controls, and what victims have over controls."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measure import Measure, base_of, by_name
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.estimation.statistics import newcombe, wilson
from fedmem.probes._clusters import difference_interval, mean_interval
from fedmem.probes._measures import OUT

WHOSE = ("owner", "kind", "gallery", "peers")
"""The labels that say whose a value is. Values are grouped by all others and by the kind."""


@dataclass(frozen=True, kw_only=True)
class _ScoredVictims:
    """One value and the clusters that it belongs to; the owner is -1 for an attack on a whole cohort."""

    value: float
    owner: int
    run: int
    gallery: int
    peers: int


def summed_up(
    measurements: Sequence[Measurement],
    measures: Sequence[Measure],
    in_summary: Collection[Measurement] | None = None,
) -> list[Measurement]:
    """Means by kind and view and what victims have over controls, for each attacked round and in the summary.

    Values of NaN do not count, as `n` says; without any other the mean is NaN. `measures` give the range that an
    interval does not leave. The summary is over `in_summary`, those of the measurements that it may count, or over all.
    """
    of_summary = None if in_summary is None else {id(measurement) for measurement in in_summary}
    declared = by_name(measures)
    groups: dict[tuple[str, int | None, Level, str, Labels, str], list[_ScoredVictims]] = {}
    for measurement in measurements:
        labels = measurement.reading.labels
        scored = _ScoredVictims(
            value=measurement.reading.value,
            owner=labels.integer("owner", measurement.client),
            run=measurement.run_number,
            gallery=labels.integer("gallery", 0),
            peers=labels.integer("peers", 0),
        )
        is_counted = of_summary is None or id(measurement) in of_summary
        for round_number in (measurement.round, None)[: 1 + is_counted]:
            key = (
                measurement.source,
                round_number,
                measurement.level,
                measurement.reading.metric,
                labels.without(*WHOSE),
                labels.text("kind"),
            )
            groups.setdefault(key, []).append(scored)
    groups = {key: [member for member in members if not math.isnan(member.value)] for key, members in groups.items()}
    summaries = []
    for (source, round_number, level, metric, labels, kind), members in groups.items():
        measure = declared[base_of(metric)]
        readings = [_mean(measure, metric, members, kind, labels)]
        controls = (
            groups.get((source, round_number, level, metric, labels.plus(coin=OUT), kind))
            if "coin" not in labels
            else None
        )
        if members and controls:
            readings.append(_difference(measure, metric, members, controls, kind, labels))
        summaries += [
            Measurement(run=None, round=round_number, level=level, client=NO_CLIENT, source=source, reading=reading)
            for reading in readings
        ]
    return summaries


def at_last_participation(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The measurements of each example, labelled with its owner, in the last round at which its owner's model was read.

    That is one round for each run and example, the same at all levels. So the aggregate is that of the round of the
    local models. Models of other clients that hold the example do not count. Without any reading of an owner's model it
    is the last round of all. An example whose owner was never read, where other owners were, has none.
    """
    last: dict[tuple[int, str], int] = {}
    for measurement in measurements:
        if measurement.level == "local" and measurement.client == measurement.reading.labels.get("owner"):
            key = measurement.run_number, measurement.reading.subject
            last[key] = max(measurement.round_number, last.get(key, 0))
    if not last:
        final = max((measurement.round_number for measurement in measurements), default=0)
        return [measurement for measurement in measurements if measurement.round_number == final]
    return [
        measurement
        for measurement in measurements
        if last.get((measurement.run_number, measurement.reading.subject)) == measurement.round_number
    ]


def _values(members: Sequence[_ScoredVictims]) -> FloatArray:
    return np.array([member.value for member in members])


def _owners_of(members: Sequence[_ScoredVictims]) -> list[int]:
    return [member.owner for member in members]


def _runs(members: Sequence[_ScoredVictims]) -> list[int]:
    return [member.run for member in members]


def _trials(members: Sequence[_ScoredVictims]) -> int:
    """The number of independent yes-or-no answers that these values are worth."""
    return min(len(set(_owners_of(members))), len(set(_runs(members))))


def _gallery_text(members: Sequence[_ScoredVictims]) -> dict[str, int | None]:
    """The smallest gallery and the fewest peers as labels, where there are any."""
    gallery, peers = (min(getattr(member, name) for member in members) for name in ("gallery", "peers"))
    return {"gallery": gallery, "peers": peers} if gallery else {}


def _mean(measure: Measure, metric: str, members: Sequence[_ScoredVictims], kind: str, labels: Labels) -> Reading:
    """The mean of one metric, with an interval that clusters by owner and by run."""
    if not members:
        return Reading(metric=metric, value=math.nan, n=0, subject=kind, labels=labels)
    values = _values(members)
    value = float(values.mean())
    low, high = mean_interval(values, _owners_of(members), _runs(members))
    if measure.is_yes_or_no:
        # All or none has no spread, yet says little about the next attack.
        trials = _trials(members)
        low, high = (float(end) for end in wilson(value * trials, trials))
    low, high = _clip_to_bounds(measure.range_of(metric), low, high)
    about = labels.plus(**_gallery_text(members))
    return Reading(metric=metric, value=value, low=low, high=high, n=len(values), subject=kind, labels=about)


def _difference(
    measure: Measure,
    metric: str,
    ins: Sequence[_ScoredVictims],
    outs: Sequence[_ScoredVictims],
    kind: str,
    labels: Labels,
) -> Reading:
    """The difference of victims minus controls."""
    first, second = _values(ins), _values(outs)
    ways = ((_owners_of(ins), _owners_of(outs)), (_runs(ins), _runs(outs)))
    low, high = difference_interval(first, second, *ways)
    if measure.is_yes_or_no:
        trials, others = _trials(ins), _trials(outs)
        newcombe_low, newcombe_high = newcombe(first.mean() * trials, trials, second.mean() * others, others)
        # An interval of NaN, of one cluster, leaves the other one alone.
        low, high = float(np.fmin(low, newcombe_low)), float(np.fmax(high, newcombe_high))
    value, n = float(first.mean() - second.mean()), len(first) + len(second)
    about = labels.plus(contrast="coins", minus=OUT, **_gallery_text([*ins, *outs]))
    name = f"{metric}.difference"
    low, high = _clip_to_bounds(measure.range_of(name), low, high)
    return Reading(metric=name, value=value, low=low, high=high, n=n, subject=kind, labels=about)


def _clip_to_bounds(ends: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """An interval within the range of its measure."""
    return float(np.clip(low, *ends)), float(np.clip(high, *ends))
