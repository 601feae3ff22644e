"""Attacks on many victims summed up: means over victims and over controls, and what victims have over controls."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.measurement import EVERYWHERE, FINAL, Level, Measurement, Reading
from fedmem.contracts.types import FloatArray
from fedmem.estimation.statistics import newcombe, wilson
from fedmem.modalities.numbers import CAP
from fedmem.probes._clusters import difference_interval, mean_interval
from fedmem.probes._measures import CONTROL

EXTRACTED = ("greedy", "greedy_near", "beam", "beam_near", "discoverable", "searched")
"""Whether a text was taken out of a model, way by way."""

RANGES = {
    "identified": (0.0, 1.0),
    "identified.difference": (-1.0, 1.0),
    "beats_prior": (0.0, 1.0),
    "beats_prior.difference": (-1.0, 1.0),
    "ssim": (-1.0, 1.0),
    "ssim.difference": (-2.0, 2.0),
    "mse": (0.0, 1.0),
    "mse.difference": (-1.0, 1.0),
    "cells": (0.0, 1.0),
    "cells.difference": (-1.0, 1.0),
    "cells_gain": (-1.0, 1.0),
    **dict.fromkeys(("likeness", "tokens", "in_order", "in_place", "verbatim"), (0.0, 1.0)),
    **{f"{metric}.difference": (-1.0, 1.0) for metric in ("likeness", "tokens", "in_order", "in_place", "verbatim")},
    "likeness_gain": (-1.0, 1.0),
    "likeness_gain.difference": (-2.0, 2.0),
    "psnr": (0.0, CAP),
    "psnr.difference": (-CAP, CAP),
    "margin": (-CAP, CAP),
    "margin.difference": (-2 * CAP, 2 * CAP),
    "alignment": (-1.0, 1.0),
    "alignment.difference": (-2.0, 2.0),
    "label_accuracy": (0.0, 1.0),
    "label_accuracy.guess": (0.0, 1.0),
    "coverage": (0.0, 1.0),
    "distance": (0.0, np.inf),
    **dict.fromkeys(EXTRACTED, (0.0, 1.0)),
    **{f"{metric}.difference": (-1.0, 1.0) for metric in EXTRACTED},
}
"""Metrics with bounds, which an interval does not leave."""

SHARES = ("identified", "beats_prior", "verbatim", *EXTRACTED)
"""Metrics that are yes or no."""

_ABOUT = re.compile(
    r",holder=(?P<holder>-?\d+)(?:,gallery=(?P<gallery>\d+),peers=(?P<peers>\d+))?,kind=(?P<kind>.*)", re.S
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """The parts of a setting: what values are grouped by, and whose this one is."""

    setting: str
    holder: int | None = None
    kind: str = ""
    gallery: int = 0
    peers: int = 0


def parsed(setting: str) -> Said:
    """The parts of a setting that a probe has written; the kind is all that follows its name.

    >>> parsed("view=message,knows=lr,coin=out,holder=3,kind=a, b")
    Said(setting='view=message,knows=lr,coin=out', holder=3, kind='a, b', gallery=0, peers=0)
    """
    about = _ABOUT.search(setting)
    if about is None:
        return Said(setting=setting)
    return Said(
        setting=setting[: about.start()],
        holder=int(about["holder"]),
        kind=about["kind"],
        gallery=int(about["gallery"] or 0),
        peers=int(about["peers"] or 0),
    )


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """One value and the clusters that it belongs to; the holder is -1 for an attack on a whole cohort."""

    value: float
    holder: int
    run: int
    gallery: int
    peers: int


def summed_up(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Means by kind and view and what victims have over controls, for each attacked round and at FINAL over all.

    Values of NaN do not count, as `n` says; without any other the mean is NaN.
    """
    groups: dict[tuple[str, int, Level, str, str, str], list[_Scored]] = {}
    for one in measurements:
        said = parsed(one.reading.setting)
        scored = _Scored(
            value=one.reading.value,
            holder=one.client if said.holder is None else said.holder,
            run=one.run,
            gallery=said.gallery,
            peers=said.peers,
        )
        for round in (one.round, FINAL):
            key = (one.source, round, one.level, one.reading.metric, said.setting, said.kind)
            groups.setdefault(key, []).append(scored)
    groups = {key: [one for one in members if not math.isnan(one.value)] for key, members in groups.items()}
    found = []
    for (source, round, level, metric, setting, kind), members in groups.items():
        readings = [_mean(metric, members, kind, setting)]
        controls = groups.get((source, round, level, metric, setting + CONTROL, kind))
        if members and controls:
            readings.append(_difference(metric, members, controls, kind, setting))
        found += [
            Measurement(run=EVERYWHERE, round=round, level=level, client=EVERYWHERE, source=source, reading=reading)
            for reading in readings
        ]
    return found


def _values(members: Sequence[_Scored]) -> FloatArray:
    return np.array([one.value for one in members])


def _holders(members: Sequence[_Scored]) -> list[int]:
    return [one.holder for one in members]


def _runs(members: Sequence[_Scored]) -> list[int]:
    return [one.run for one in members]


def _trials(members: Sequence[_Scored]) -> int:
    """How many answers to yes or no these values are worth."""
    return min(len(set(_holders(members))), len(set(_runs(members))))


def _among(members: Sequence[_Scored]) -> str:
    """The smallest gallery and the fewest peers, where there are any."""
    gallery, peers = (min(getattr(one, name) for one in members) for name in ("gallery", "peers"))
    return f",gallery={gallery},peers={peers}" if gallery else ""


def _mean(metric: str, members: Sequence[_Scored], kind: str, setting: str) -> Reading:
    """The mean of one metric, with an interval that clusters by holder and by run."""
    if not members:
        return _reading(metric, math.nan, math.nan, math.nan, 0, kind, setting)
    values = _values(members)
    value = float(values.mean())
    low, high = mean_interval(values, _holders(members), _runs(members))
    if metric in SHARES:
        # All or none has no spread, yet says little about the next attack.
        trials = _trials(members)
        low, high = (float(end) for end in wilson(value * trials, trials))
    return _reading(metric, value, low, high, len(values), kind, setting + _among(members))


def _difference(metric: str, ins: Sequence[_Scored], outs: Sequence[_Scored], kind: str, setting: str) -> Reading:
    """How much higher victims are than controls."""
    first, second = _values(ins), _values(outs)
    ways = ((_holders(ins), _holders(outs)), (_runs(ins), _runs(outs)))
    low, high = difference_interval(first, second, *ways)
    if metric in SHARES:
        trials, others = _trials(ins), _trials(outs)
        least, most = newcombe(first.mean() * trials, trials, second.mean() * others, others)
        # An interval of NaN, of one cluster, leaves the other one alone.
        low, high = float(np.fmin(low, least)), float(np.fmax(high, most))
    value, n = float(first.mean() - second.mean()), len(first) + len(second)
    about = f"in-out,{setting}{_among([*ins, *outs])}"
    return _reading(f"{metric}.difference", value, low, high, n, kind, about)


def _reading(metric: str, value: float, low: float, high: float, n: int, kind: str, setting: str) -> Reading:
    """A summary, its interval within the bounds of the metric."""
    least, most = RANGES.get(metric, (-np.inf, np.inf))
    low, high = (float(np.clip(end, least, most)) for end in (low, high))
    return Reading(metric=metric, value=value, low=low, high=high, n=n, subject=kind, setting=setting)
