"""Success of a backdoor on fresh rows with its trigger, in runs with the backdoor and in runs without it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import TriggeredRows
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.estimation.randomisation import two_sided
from fedmem.estimation.statistics import student_mean
from fedmem.estimation.two_way import FEWEST, quantile

METRICS = ("backdoor_success", "clean_target_rate")

DEALS = 999
"""Draws of inclusion for p, where not all can be counted."""


@dataclass(frozen=True, kw_only=True)
class BackdoorSuccess:
    """The share of fresh rows with the trigger that a model gives the target label.

    The rows are the test rows of all other classes. No client trains on them, with or without the trigger.

    - `backdoor_success`: share of them with the trigger that get the target label, 0..1;
    - `clean_target_rate`: the same of these rows without the trigger: the base rate.

    There is a reading of each model. `summarise` has three rows of each measure for each round, level and place. They
    are the mean over runs with the backdoor, the mean over runs without it (label `coin` = `out`), and the difference,
    with p. The last round with readings is repeated as the summary. At level `local` the places are the attackers
    (`owner`) and the other clients (`others`), with one mean for each run.

    One draw decides the whole backdoor. So runs are the only trials. With R runs the interval of the difference has
    R/2 − 1 degrees of freedom. There is none with fewer than eight runs on a side, or where all values of both sides
    are alike. For p, inclusion is drawn again, in all ways or in 999 of them.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to measure.

    Guarantees: deterministic; reads `kept`. A tie is no answer, and a model that has diverged does not count.

    >>> BackdoorSuccess().needs_triggers
    True

    Reference: Gu, Dolan-Gavitt and Garg (2017), BadNets.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="backdoor_success",
            title="success of the backdoor",
            means="Share of fresh rows of other classes that get the target label once they carry the trigger.",
            is_not="It includes the rate without the backdoor. Only the difference is an effect of the backdoor.",
            unit="share",
            range=(0.0, 1.0),
            difference="success of the backdoor, with minus without it",
        ),
        Measure(
            name="clean_target_rate",
            title="base rate of the target",
            means="Share of the same rows without the trigger that get the target label.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
            difference="base rate of the target, with minus without the backdoor",
        ),
    )
    counts_groups: ClassVar[bool] = True
    compares_held_out: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True
    needs_triggers: ClassVar[bool] = True
    min_runs: ClassVar[int] = 2

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Both shares of every model, for each backdoor."""
        readings: list[tuple[Transition, Reading]] = []
        for rows in context.federation.triggers:
            models = [t for t in transitions if t.level != "sum" and _decides(t.run, rows, context)]
            if models and len(rows.clean):
                for metric, inputs in zip(METRICS, (rows.triggered, rows.clean), strict=True):
                    logits = context.logits([t.kept for t in models], inputs)
                    for t, share in zip(models, _shares(logits, rows.target).tolist(), strict=True):
                        readings.append((t, _reading(metric, share, t, rows, context)))
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """In, out and the difference, of each round and of the last one as the summary."""
        groups: dict[tuple[str, int, Level, str, str], list[Measurement]] = {}
        for one in measurements:
            reading = one.reading
            key = (reading.subject, one.round_number, one.level, reading.labels.text("place"), reading.metric)
            groups.setdefault(key, []).append(one)
        last: dict[tuple[str, Level, str], int] = {}
        for kind, round_number, level, place, _ in groups:
            last[kind, level, place] = max(round_number, last.get((kind, level, place), 0))
        rows = [
            replace(members[0], run=None, client=NO_CLIENT, reading=reading)
            for members in groups.values()
            for reading in _compare(members, np.random.default_rng(seed))
        ]
        final = (
            row for row in rows if row.round == last[row.reading.subject, row.level, row.reading.labels.text("place")]
        )
        return [*rows, *(replace(row, round=None) for row in final)]


def _decides(run: int, rows: TriggeredRows, context: Context) -> bool:
    """Whether an attacker takes part in a run, so that its draw has an effect."""
    audit = context.federation.audit
    return bool(audit.owner_in[run, audit.kind == rows.kind].any())


def _shares(logits: FloatArray, target: int) -> FloatArray:
    """(T,) the share of rows (T, n, C) whose logit of the target is above all others; NaN for a diverged model."""
    others = np.delete(logits, target, axis=2).max(axis=2)
    share = (logits[:, :, target] > others).mean(axis=1)
    return np.where(np.isnan(logits).any(axis=(1, 2)), np.nan, share)


def _reading(metric: str, share: float, t: Transition, rows: TriggeredRows, context: Context) -> Reading:
    audit = context.federation.audit
    of_kind = np.flatnonzero(audit.kind == rows.kind)
    place = "" if t.level == "global" else "owner" if t.client in audit.owner[of_kind] else "others"
    coin = "" if audit.is_in[t.run, of_kind[0]] else "out"
    n = int(not math.isnan(share))
    return Reading(metric=metric, value=share, n=n, subject=rows.kind, labels=Labels.of(place=place, coin=coin))


def _compare(members: Sequence[Measurement], rng: np.random.Generator) -> Iterator[Reading]:
    """The mean over in runs, that over out runs, and their difference with p; runs are averaged over models first."""
    by_run: dict[int, list[float]] = {}
    is_in: dict[int, bool] = {}
    for one in members:
        is_in[one.run_number] = one.reading.labels.get("coin") != "out"
        if not math.isnan(one.reading.value):
            by_run.setdefault(one.run_number, []).append(one.reading.value)
    values = np.array([np.mean(of_run) for of_run in by_run.values()])
    coins = np.array([is_in[run] for run in by_run], dtype=bool)
    first = members[0].reading
    labels = first.labels.without("coin")
    for coin, side in (("", values[coins]), ("out", values[~coins])):
        low, high = (float(np.clip(end, 0.0, 1.0)) for end in student_mean(side))
        yield Reading(
            metric=first.metric,
            value=float(side.mean()) if len(side) else math.nan,
            low=low,
            high=high,
            n=len(side),
            subject=first.subject,
            labels=labels.plus(coin=coin),
        )
    if not 0 < coins.sum() < len(coins):
        return
    gap, half = difference(values, coins)
    contrast = labels.plus(contrast="coins", minus="out")
    yield Reading(
        metric=f"{first.metric}.difference",
        value=gap,
        low=float(np.clip(gap - half, -1.0, 1.0)),
        high=float(np.clip(gap + half, -1.0, 1.0)),
        n=len(values),
        subject=first.subject,
        labels=contrast,
    )
    deals = _deals(coins, rng)
    p = two_sided((deals @ values) / coins.sum() - (~deals @ values) / (~coins).sum())
    yield Reading(metric=f"{first.metric}.p", value=p, n=len(deals) - 1, subject=first.subject, labels=contrast)


def difference(values: FloatArray, coins: BoolArray) -> tuple[float, float]:
    """The mean over in runs minus that over out runs, and half of its interval, NaN where there is none.

    Its degrees of freedom are those of the smaller side, which keeps the level for any two spreads (Scheffé, 1970).

    >>> gap, half = difference(np.array([1.0] * 8 + [0.0, 0.5] * 4), np.arange(16) < 8)
    >>> gap, round(half, 2)
    (0.75, 0.22)
    """
    sides = values[coins], values[~coins]
    gap = float(sides[0].mean() - sides[1].mean())
    smaller = min(map(len, sides))
    if smaller < FEWEST:
        return gap, math.nan
    error = math.sqrt(sum(float(side.var(ddof=1)) / len(side) for side in sides))
    return gap, quantile(smaller - 1) * error if error > 1e-12 else math.nan


def _deals(coins: BoolArray, rng: np.random.Generator) -> BoolArray:
    """(P + 1, R) ways in which the draw could have fallen, as it fell first: all of them, or some at random."""
    runs, ins = len(coins), int(coins.sum())
    if math.comb(runs, ins) > DEALS:
        return np.concatenate([coins[None], rng.permuted(np.tile(coins, (DEALS, 1)), axis=1)])
    every = np.array([np.isin(np.arange(runs), chosen) for chosen in combinations(range(runs), ins)])
    return np.concatenate([coins[None], every[(every != coins).any(1)]])
