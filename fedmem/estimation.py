"""From a bank and its estimators to rows: values with intervals, differences, and what aggregation keeps.

Every row has client −1 and, but for tests of single runs, run −1; `source` is the kind of the estimator. Its `setting`
joins, by commas and in this order, what the row compares, the place (`owner`, `others`, nothing at level `global`)
and the setting of the estimate itself (`probability`, `lira`, `lira,fpr=0.0078`, …), empty parts left out.

======================  ===========  ==========================  ==============  ====================================
metric                  level        subject                     setting starts  rounds
======================  ===========  ==========================  ==============  ====================================
M                       each         kind                        place           observed and FINAL
M                       each         number of an audit example  place           FINAL
M.null                  each         kind                        place           FINAL; the value without memorisation
M.difference            global       kind                        local-global    observed from 1 on and FINAL
M.difference            each         kind A                      A-B             observed and FINAL, A before B
retention               global       kind                        M               FINAL
retention               global       kind                        M,…,all rounds  FINAL; rounds from 1 on, pooled
exposure_p, ..rejected  each         kind of canary              place           observed and FINAL; run r, run −1
skewnormal_..           each         kind of canary              place           FINAL; run −1
cross_..                each         kind, or number of example  place           FINAL; run −1
client_influence        global       client k, empty: the mean   what is read    FINAL; run −1
======================  ===========  ==========================  ==============  ====================================

M stands for `memorisation`, `exposure`, `exposure_gain`, `exposure_extrapolated`, `cross_influence`, `auc`, `tpr`, and
what other estimators name. The last four lines are rows of `tests`, which their estimators describe. `n` counts audit
examples: pairs of them for retention over all rounds, both kinds together for differences of kinds, and runs for the
row of a single example (for a `tests` row, what the estimator says).

- Local and global are compared at the holder's model (`owner`) and over the same examples: where a round shows some of
  them only globally, the global side of a difference or a retention is estimated anew without those. So at an observed
  round M(owner) − M(global) need not equal the difference; at FINAL it does, unless a
  kind has examples that nobody holds.
- retention = Σ(global − null) / Σ(local − null) over all examples of the kind, whatever their local value. Where the
  interval of the denominator is not above 0 there is no memorisation to keep: the value is NaN and the setting ends in
  `not resolved`. Over all rounds an AUC or rate of a round counts with its number of examples; a rate whose threshold
  changes between rounds has no such row. A sum of effects of both signs (`Estimate.signed`) has no retention: gains
  and losses cancel differently at the two levels, so that the ratio is no share of anything.
- All intervals are 95 % percentile intervals over one and the same B draws of runs and examples, so differences and
  ratios are paired. Those of single examples are the estimator's own, or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby
from typing import Any

import numpy as np

from fedmem.components import Estimator
from fedmem.errors import ComponentError
from fedmem.guarding import Guard
from fedmem.seeding import stream
from fedmem.statistics import cluster_interval, resampling
from fedmem.types import EVERYWHERE, FINAL, Bank, Estimate, FloatArray, Level, Measurement, Reading, Resampling, View
from fedmem.validation import estimates_of, run_readings_of
from fedmem.views import views


@dataclass(frozen=True)
class _Pair:
    """One estimate at the holder and after aggregation, over the same examples."""

    local: Estimate
    whole: Estimate


def estimate(bank: Bank, estimators: Sequence[Estimator], draws: int) -> list[Measurement]:
    """Every row that the estimators find in a bank, with intervals from `draws` resamples.

    - pure: the same bank, estimators and draws give the same rows, bit for bit and in the same order; draws come from
      the stream `bootstrap` of the bank's seed;
    - an estimator that needs more runs than the bank has is a `ComponentError`, not a row without meaning.
    """
    for number, estimator in enumerate(estimators):
        needed = getattr(estimator, "min_runs", 1)
        if bank.audit.runs < needed:
            name, runs = _source(estimator), bank.audit.runs
            raise ComponentError(
                f"estimators[{number}]",
                f"{name} needs at least {needed} runs and the bank has {runs}; raise runs or leave {name} out",
            )
    sample = resampling(bank.audit, draws, stream(bank.seed, "bootstrap"))
    rows: list[Measurement] = []
    pairs: list[list[tuple[int, _Pair]]] = [[] for _ in estimators]
    for round, group in groupby(views(bank, sample), key=lambda view: view.round):
        places = list(group)
        for estimator, known in zip(estimators, pairs, strict=True):
            source = _source(estimator)
            found = [(view, _estimated(estimator, view)) for view in places]
            for view, estimates in found:
                rows += _values(view, estimates, source)
                rows += _between_kinds(view, estimates, source)
                rows += _tests(view, estimator, source)
            paired = list(_paired(estimator, found))
            rows += [_between_levels(round, pair, source, bank.audit.runs) for pair in paired]
            known += [(round, pair) for pair in paired if not pair.local.signed]
    for estimator, known in zip(estimators, pairs, strict=True):
        rows += _retentions(known, sample, _source(estimator))
    return rows


def _estimated(estimator: Estimator, view: View) -> list[Estimate]:
    """What an estimator finds in a view."""
    with Guard("estimator", estimator, "estimate", **_at(view)) as guard:
        return estimates_of(guard, estimator.estimate(view), len(view.resampling.runs))


def _at(view: View) -> dict[str, Any]:
    """Where a view looks, for messages."""
    return {"round": "of the summary" if view.round == FINAL else view.round, "level": view.level}


def _source(component: object) -> str:
    """The kind of a component is the name of its file."""
    return type(component).__module__.rpartition(".")[2]


def _join(*parts: str) -> str:
    return ",".join(part for part in parts if part)


def _row(round: int, level: Level, source: str, reading: Reading, run: int = EVERYWHERE) -> Measurement:
    return Measurement(run=run, round=round, level=level, client=EVERYWHERE, source=source, reading=reading)


def _bounded(
    metric: str, value: float, replicates: FloatArray, n: int, subject: str, setting: str, clusters: int
) -> Reading:
    """A reading with the percentile interval of its replicates, where there are enough clusters for one."""
    low, high = cluster_interval(replicates, clusters)
    return Reading(metric=metric, value=value, low=low, high=high, n=n, subject=subject, setting=setting)


def _values(view: View, estimates: Sequence[Estimate], source: str) -> Iterator[Measurement]:
    """The kinds, and at FINAL their nulls and the single examples."""
    for e in estimates:
        setting = _join(view.setting, e.setting)
        clusters = min(view.audit.runs, e.n)
        reading = _bounded(e.metric, e.value, e.replicates, e.n, e.kind, setting, clusters)
        yield _row(view.round, view.level, source, reading)
        if view.round != FINAL:
            continue
        null = Reading(metric=f"{e.metric}.null", value=e.null, n=e.n, subject=e.kind, setting=setting)
        yield _row(view.round, view.level, source, null)
        if e.examples is None or e.per_example is None:
            continue
        unknown = np.full(len(e.examples), np.nan)
        lows, highs = (unknown if bound is None else bound for bound in (e.per_example_low, e.per_example_high))
        counts = np.ones(len(e.examples), np.int64) if e.per_example_n is None else e.per_example_n
        columns = (column.tolist() for column in (e.examples, e.per_example, lows, highs, counts))
        for example, value, low, high, n in zip(*columns, strict=True):
            single = Reading(
                metric=e.metric, value=value, low=low, high=high, n=n, subject=str(example), setting=setting
            )
            yield _row(view.round, view.level, source, single)


def _between_kinds(view: View, estimates: Sequence[Estimate], source: str) -> Iterator[Measurement]:
    """Every kind less every later one, in the order of the scenario."""
    for a, b in combinations(estimates, 2):
        if (a.metric, a.setting) == (b.metric, b.setting):
            setting = _join(f"{a.kind}-{b.kind}", view.setting, a.setting)
            metric, value, replicates = f"{a.metric}.difference", a.value - b.value, a.replicates - b.replicates
            clusters = min(view.audit.runs, a.n, b.n)
            reading = _bounded(metric, value, replicates, a.n + b.n, a.kind, setting, clusters)
            yield _row(view.round, view.level, source, reading)


def _tests(view: View, estimator: Estimator, source: str) -> Iterator[Measurement]:
    with Guard("estimator", estimator, "tests", **_at(view)) as guard:
        found = run_readings_of(guard, estimator.tests(view), view.audit.runs)
    for run, reading in found:
        placed = replace(reading, setting=_join(view.setting, reading.setting))
        yield _row(view.round, view.level, source, placed, run)


def _paired(estimator: Estimator, found: Sequence[tuple[View, Sequence[Estimate]]]) -> Iterator[_Pair]:
    """What one round shows both at the holders and after aggregation, over the same examples."""
    places = {(view.level, view.setting): (view, estimates) for view, estimates in found}
    if ("local", "owner") not in places or ("global", "") not in places:
        return
    owner, local = places["local", "owner"]
    view, whole = places["global", ""]
    hidden = np.isnan(owner.margin).all((0, 1))
    if not np.isnan(view.margin[:, :, hidden]).all():
        loss, margin = np.where(hidden, np.nan, view.loss), np.where(hidden, np.nan, view.margin)
        correct, rank = np.where(hidden, np.nan, view.correct), np.where(hidden, np.nan, view.rank)
        whole = _estimated(estimator, replace(view, loss=loss, margin=margin, correct=correct, rank=rank))
    by_key = {(e.metric, e.setting, e.kind): e for e in whole}
    for e in local:
        if (e.metric, e.setting, e.kind) in by_key:
            yield _Pair(e, by_key[e.metric, e.setting, e.kind])


def _between_levels(round: int, pair: _Pair, source: str, runs: int) -> Measurement:
    local, whole = pair.local, pair.whole
    reading = _bounded(
        f"{local.metric}.difference",
        local.value - whole.value,
        local.replicates - whole.replicates,
        local.n,
        local.kind,
        _join("local-global", local.setting),
        min(runs, local.n),
    )
    return _row(round, "global", source, reading)


def _retentions(known: Sequence[tuple[int, _Pair]], sample: Resampling, source: str) -> Iterator[Measurement]:
    """Retention of every key, at the last rounds and over all of them."""
    keys = dict.fromkeys((pair.local.metric, pair.local.setting, pair.local.kind) for _, pair in known)
    for metric, setting, kind in keys:
        of_key = {r: p for r, p in known if (p.local.metric, p.local.setting, p.local.kind) == (metric, setting, kind)}
        rounds = {r for r, p in known if (p.local.metric, p.local.kind) == (metric, kind) and r != FINAL}
        if FINAL in of_key:
            yield _retention([of_key[FINAL]], sample, _join(metric, setting), source)
        if rounds and rounds == of_key.keys() - {FINAL}:
            yield _retention([of_key[r] for r in sorted(rounds)], sample, _join(metric, setting, "all rounds"), source)


def _retention(pairs: Sequence[_Pair], sample: Resampling, setting: str, source: str) -> Measurement:
    """Ratio of sums over pairs of (round, example), in the sample and in every draw."""
    examples, clusters = sample.examples, min(sample.runs.shape[1], *(p.local.n for p in pairs))
    whole = sum(p.whole.n * (p.whole.value - p.whole.null) for p in pairs)
    local = sum(p.local.n * (p.local.value - p.local.null) for p in pairs)
    wholes = np.sum([_sums(p.whole, examples) for p in pairs], axis=0)
    locals_ = np.sum([_sums(p.local, examples) for p in pairs], axis=0)
    low, _ = cluster_interval(locals_, clusters)
    n, kind = sum(p.local.n for p in pairs), pairs[0].local.kind
    if not low > 0:
        reading = Reading(metric="retention", value=math.nan, n=n, subject=kind, setting=_join(setting, "not resolved"))
    else:
        ratios = wholes / np.where(locals_ == 0, np.nan, locals_)
        reading = _bounded("retention", whole / local, ratios, n, kind, setting, clusters)
    return _row(FINAL, "global", source, reading)


def _sums(e: Estimate, examples: FloatArray) -> FloatArray:
    """Σ(value − null) over the drawn examples in each draw (B,); a draw without any of them adds nothing."""
    drawn = e.n if e.examples is None else examples[:, e.examples].sum(1)
    sums = (e.replicates - e.null) * drawn
    return np.where(np.isnan(sums), 0.0, sums)
