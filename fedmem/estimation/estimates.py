"""From a bank and its estimators to rows: values with intervals, differences, and what aggregation keeps.

Every row has client −1 and, except for tests of single runs, run −1; `source` is the kind of the estimator. Its labels
are those of the estimate (`statistic`, `attack`, `fpr`, …) and its `place` (`owner`, `others`, none at level `global`).
Rows that compare estimates also have the labels in this table.

```text
======================  ===========  ==========================  ===================  =================================
metric                  level        subject                     further labels       rounds
======================  ===========  ==========================  ===================  =================================
M                       each         kind                                             observed and summary
M                       each         number of an audit example                       summary
M.null                  each         kind                                             summary; that without it, if known
M.p                     each         kind, or number of example                       summary; that of no memorisation
M.difference            global       kind                        contrast=levels,     observed from 1 on and summary
                                                                 minus=global
M.difference            each         kind A                      contrast=kinds,      observed and summary, A before B
                                                                 minus=B
retention               global       kind                        of=M                 summary
retention               global       kind                        of=M, over=rounds    summary; rounds from 1 on, pooled
exposure_p, ..rejected  each         kind of canary                                   observed, summary; run r, all runs
skewnormal_..           each         kind of canary                                   summary; over all runs
cross_..                each         kind, or number of example                       summary; over all runs
client_influence        global       client k, empty: the mean                        summary; over all runs
======================  ===========  ==========================  ===================  =================================
```

M stands for `memorisation`, `exposure`, `exposure_gain`, `exposure_extrapolated`, `cross_influence`, `auc`, `tpr`, and
the metrics of other estimators. The last four lines are rows of `tests`, which their estimators describe. `n` counts
audit examples. For retention over all rounds it counts pairs of them, and for differences of kinds both kinds together.
For the row of a single example it counts runs. For a `tests` row the estimator defines it.

- Local and global are compared at the owner's model (`owner`) and over the same examples. Where a round shows some
  examples only globally, the global side of a difference or a retention is estimated again without those. So at an
  observed round M(owner) − M(global) need not equal the difference; in the summary it does, unless a kind has examples
  without an owner.
- retention = Σ(global − null) / Σ(local − null) over all examples of the kind, whatever their local value. Where the
  interval of the denominator is not above 0 there is no memorisation to keep. The value is then NaN and the label
  `resolved` is `no`. Over all rounds an AUC or rate of a round counts with its number of examples. A rate whose
  threshold changes between rounds has no such row. A sum of effects of both signs (`Estimate.signed`) has no retention.
  Gains and losses cancel differently at the two levels, so that the ratio has no meaning.
- All intervals are 95 % intervals from two-way clusters, runs and examples (`two_way`). Differences and ratios are
  paired, as far as they share examples and runs. Those of single examples come from the estimator, or are NaN.
- `M.p` tests whether there is any memorisation, from re-dealt coins (`randomisation`); its `n` counts them. Where all
  possible deals are few, they are all used; otherwise deals are drawn (Monte Carlo). Kinds of fewer than eight examples
  have one for each example. The interval shows how much. The two may differ near the threshold: the p is about these
  examples, the interval is also about others like them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, groupby

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, Estimator, Influence, View, estimator_declaration
from fedmem.contracts.evidence import Bank
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.contracts.needs import declared_by
from fedmem.contracts.signal import AnySignal
from fedmem.contracts.validation_of_measures import estimates_of, place_readings_of, run_readings_of
from fedmem.estimation.coin_groups import num_clusters, over_independent_draws
from fedmem.estimation.quantities import place_of, with_quantities
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.refusals import require_readable
from fedmem.estimation.signal_means import SignalMeans, with_signals
from fedmem.estimation.statistics import wilson
from fedmem.estimation.two_way import combine, half_width, interval, ratio_interval
from fedmem.estimation.views import views
from fedmem.guards.guarding import Guard
from fedmem.seeding import stream

MEASURES = (
    Measure(
        name="retention",
        title="retention",
        means="The effect at the aggregate divided by the effect at the owning client. Both are differences from the "
        "null, summed over all examples of a kind. 1 means that aggregation keeps everything, 0 nothing.",
        is_not="It is not an average of ratios of single examples. It is undefined where the local effect is not "
        "significant, by its interval and by p.",
        digits=2,
        section="none",
        order=5,
    ),
)
"""The measures of the rows that follow from the estimates of every estimator."""


@dataclass(frozen=True)
class _Pair:
    """One estimate at the owner and after aggregation, over the same examples."""

    local: Estimate
    whole: Estimate
    clusters: int


@dataclass
class _Sums:
    """Σ n (value − null) over rounds, at the owner and after aggregation, with the contributions to both."""

    local: float
    whole: float
    of_local: Influence
    of_whole: Influence
    n: int
    clusters: int
    """The fewest of a round."""
    rounds: set[int]

    @classmethod
    def of(cls, round_number: int | None, pair: _Pair) -> _Sums:
        local, whole = pair.local, pair.whole
        return cls(
            local=local.n * (local.value - local.null),
            whole=whole.n * (whole.value - whole.null),
            of_local=combine([(local.n, local.influence)]),
            of_whole=combine([(whole.n, whole.influence)]),
            n=local.n,
            clusters=pair.clusters,
            rounds=set() if round_number is None else {round_number},
        )

    def add(self, other: _Sums) -> None:
        self.local, self.whole = self.local + other.local, self.whole + other.whole
        self.of_local = combine([(1.0, self.of_local), (1.0, other.of_local)])
        self.of_whole = combine([(1.0, self.of_whole), (1.0, other.of_whole)])
        self.n, self.clusters = self.n + other.n, min(self.clusters, other.clusters)
        self.rounds |= other.rounds


_Key = tuple[str, Labels, str]


class _RetentionSums:
    """The inputs of the retentions of one estimator: the summary, and the sums over observed rounds."""

    def __init__(self, deals: int) -> None:
        self.largest_p = max(_LEVEL, 2 / (deals + 1))
        self.order: dict[_Key, None] = {}
        self.final: dict[_Key, _Sums] = {}
        self.pooled: dict[_Key, _Sums] = {}
        self.rounds: dict[tuple[str, str], set[int]] = {}
        self.denied: set[_Key] = set()

    def add(self, round_number: int | None, pair: _Pair) -> None:
        """One pair of one round."""
        local = pair.local
        key, sums = (local.metric, local.labels, local.kind), _Sums.of(round_number, pair)
        self.order[key] = None
        if round_number is None:
            self.final[key] = sums
            if local.p > self.largest_p:  # an unknown p denies nothing
                self.denied.add(key)
            return
        self.rounds.setdefault((local.metric, local.kind), set()).add(round_number)
        if key in self.pooled:
            self.pooled[key].add(sums)
        else:
            self.pooled[key] = sums

    def rows(self, source: str) -> Iterator[Measurement]:
        """Retention of every key, at the last rounds and over all of them."""
        for key in self.order:
            metric, labels, kind = key
            is_denied = key in self.denied
            if key in self.final:
                yield _retention(self.final[key], kind, labels.plus(of=metric), source, is_denied=is_denied)
            rounds = self.rounds.get((metric, kind), set())
            if rounds and key in self.pooled and rounds == self.pooled[key].rounds:
                over = labels.plus(of=metric, over="rounds")
                yield _retention(self.pooled[key], kind, over, source, is_denied=is_denied)


_LEVEL = 0.05
"""The largest p of a local effect that has a retention, unless so few deals are drawn that no p is as small."""


def estimate(
    bank: Bank, estimators: Sequence[Estimator], deals: int, signals: Sequence[AnySignal] = ()
) -> list[Measurement]:
    """Every row that estimators and signals find in a bank, with intervals, and p from `deals` re-dealt coins.

    - pure: the same bank, estimators and deals give the same rows, bit for bit and in the same order. Deals come from
      the stream `redeals` of the bank's seed;
    - an estimator that cannot read the bank is a `ComponentError`, not a row without meaning; see `require_readable`;
    - where the coins of examples depend on each other, signals have no rows.
    """
    require_readable(bank.audit, estimators)
    estimators = with_signals(estimators, signals if bank.audit.coin_law.compares_sides else ())
    redeals = permute_coins(bank.audit, deals, stream(bank.seed, "redeals"))
    rows: list[Measurement] = []
    retentions = [_RetentionSums(deals) for _ in estimators]
    for round_number, group in groupby(views(bank, redeals), key=lambda view: view.round):
        places = list(group)
        if round_number is None:
            places = with_quantities(places, estimators)
        for estimator, retention in zip(estimators, retentions, strict=True):
            source = _source(estimator)
            view_estimates = [(view, estimates_in_view(estimator, view)) for view in places]
            for view, estimates in view_estimates:
                rows += _values(view, estimates, source)
                rows += _between_kinds(view, estimates, source)
                rows += _tests(view, estimator, source)
            if round_number is None:
                rows += _of_places(places, estimator, source)
            for pair in _pair_levels(estimator, view_estimates):
                rows.append(_between_levels(round_number, pair, source))
                if not pair.local.signed and not math.isnan(pair.local.null):
                    retention.add(round_number, pair)
    for estimator, retention in zip(estimators, retentions, strict=True):
        rows += retention.rows(_source(estimator))
    return rows


def estimates_in_view(estimator: Estimator, view: View) -> list[Estimate]:
    """The estimates of an estimator in a view, with the contributions of what was drawn independently."""
    return [over_draws(one, view.audit) for one in estimates_by_example(estimator, view)]


def estimates_by_example(estimator: Estimator, view: View) -> list[Estimate]:
    """The same with contributions of runs and examples, whatever was drawn independently."""
    with Guard("estimator", estimator, "estimate", **place_of(view)) as guard:
        return estimates_of(guard, estimator.estimate(view), view.audit.is_in.shape, declared_by(estimator))


def over_draws(e: Estimate, audit: AuditSet) -> Estimate:
    """An estimate with the contributions of coin rows and coin groups."""
    parts = over_independent_draws(e.influence, audit, _examples_of(e, audit))
    return replace(e, influence=parts)


def _examples_of(e: Estimate, audit: AuditSet) -> IntArray:
    """The examples behind an estimate."""
    return np.flatnonzero(audit.kind == e.kind) if e.examples is None else e.examples


def hide_examples(view: View, hidden: BoolArray) -> View:
    """The same view without the evidence on the audit examples that are `hidden` (m,)."""
    loss, margin = np.where(hidden, np.nan, view.loss), np.where(hidden, np.nan, view.margin)
    correct, rank = np.where(hidden, np.nan, view.correct), np.where(hidden, np.nan, view.rank)
    series = None if view.series is None else view.series.hide(hidden)
    others = None if view.others is None else view.others.hide(hidden)
    signals = {name: np.where(hidden, np.nan, values) for name, values in view.signals.items()}
    return replace(
        view, loss=loss, margin=margin, correct=correct, rank=rank, series=series, others=others, signals=signals
    )


def _source(component: object) -> str:
    """The kind of a component is the name of its file; what a signal says is that of the signal."""
    component = component.signal if isinstance(component, SignalMeans) else component
    return type(component).__module__.rpartition(".")[2]


def _labels_with_place(view: View, labels: Labels) -> Labels:
    """The labels of what a view shows, with its place."""
    return labels.plus(place=view.place)


def _row(round_number: int | None, level: Level, source: str, reading: Reading, run: int | None = None) -> Measurement:
    return Measurement(run=run, round=round_number, level=level, client=NO_CLIENT, source=source, reading=reading)


def _values(view: View, estimates: Sequence[Estimate], source: str) -> Iterator[Measurement]:
    """The kinds, and in the summary their nulls, their p and the single examples."""
    for e in estimates:
        labels = _labels_with_place(view, e.labels)
        low, high = interval_of(view, e)
        reading = Reading(metric=e.metric, value=e.value, low=low, high=high, n=e.n, subject=e.kind, labels=labels)
        yield _row(view.round, view.level, source, reading)
        if view.round is not None:
            continue
        if not math.isnan(e.null):
            null = Reading(metric=f"{e.metric}.null", value=e.null, n=e.n, subject=e.kind, labels=labels)
            yield _row(view.round, view.level, source, null)
        if not math.isnan(e.p):
            p = Reading(metric=f"{e.metric}.p", value=e.p, n=e.redeals, subject=e.kind, labels=labels)
            yield _row(view.round, view.level, source, p)
        if e.examples is None or e.per_example is None:
            continue
        unknown = np.full(len(e.examples), np.nan)
        lows, highs = (unknown if bound is None else bound for bound in (e.per_example_low, e.per_example_high))
        counts = np.ones(len(e.examples), np.int64) if e.per_example_n is None else e.per_example_n
        columns = (column.tolist() for column in (e.examples, e.per_example, lows, highs, counts))
        for example, value, low, high, n in zip(*columns, strict=True):
            single = Reading(metric=e.metric, value=value, low=low, high=high, n=n, subject=str(example), labels=labels)
            yield _row(view.round, view.level, source, single)
        if e.per_example_p is None:
            continue
        for example, value in zip(e.examples.tolist(), e.per_example_p.tolist(), strict=True):
            if not math.isnan(value):
                runs = int((~np.isnan(view.margin[:, :, example])).any(1).sum())
                of_one = Reading(metric=f"{e.metric}.p", value=value, n=runs, subject=str(example), labels=labels)
                yield _row(view.round, view.level, source, of_one)


def interval_of(view: View, e: Estimate) -> tuple[float, float]:
    """The interval of an estimate; of a share that is 0 or 1, Wilson's with a trial for each cluster."""
    clusters = count_clusters(view, e)
    if e.is_share and min(abs(e.value), abs(1.0 - e.value)) < 1e-12:
        low, high = wilson(round(e.value) * clusters, clusters)
        return float(low), float(high)
    return interval(e.value, e.influence, clusters, e.bounds)


def count_clusters(view: View, e: Estimate) -> int:
    """The smaller of the number of examples behind an estimate and the number of runs with an answer about any of them.

    Runs that diverged, and runs without the owning clients, have no answers. Twins count once, and so do examples that
    are in or out together; see `coin_groups.num_clusters`.
    """
    rows = _examples_of(e, view.audit)
    answered: BoolArray = np.asarray(~np.isnan(view.margin[:, :, rows]).all((1, 2)))
    clusters = num_clusters(view.audit, rows, answered)
    return clusters if view.audit.shares_coins(rows) else min(clusters, e.n)


def _difference(a: Estimate, b: Estimate, labels: Labels, n: int, clusters: int) -> Reading:
    """a − b with its interval, paired; `n` examples stand behind it."""
    value = a.value - b.value
    influence = combine([(1.0, a.influence), (-1.0, b.influence)])
    bounds = (a.bounds[0] - b.bounds[1], a.bounds[1] - b.bounds[0])
    low, high = interval(value, influence, clusters, bounds, scale=max(abs(a.value), abs(b.value)))
    metric = f"{a.metric}.difference"
    return Reading(metric=metric, value=value, low=low, high=high, n=n, subject=a.kind, labels=labels)


def _between_kinds(view: View, estimates: Sequence[Estimate], source: str) -> Iterator[Measurement]:
    """Every kind less every later one, in the order of the scenario."""
    for a, b in combinations(estimates, 2):
        if (a.metric, a.labels) == (b.metric, b.labels):
            labels = _labels_with_place(view, a.labels).plus(contrast="kinds", minus=b.kind)
            clusters = min(count_clusters(view, a), count_clusters(view, b))
            yield _row(view.round, view.level, source, _difference(a, b, labels, a.n + b.n, clusters))


def _tests(view: View, estimator: Estimator, source: str) -> Iterator[Measurement]:
    with Guard("estimator", estimator, "tests", **place_of(view)) as guard:
        readings = run_readings_of(guard, estimator.tests(view), view.audit.runs, declared_by(estimator))
    for run, reading in readings:
        placed = replace(reading, labels=_labels_with_place(view, reading.labels))
        yield _row(view.round, view.level, source, placed, run)


def _of_places(places: Sequence[View], estimator: Estimator, source: str) -> Iterator[Measurement]:
    """The readings that compare the places of the summary."""
    compare = estimator_declaration(estimator).readings_of_places
    if compare is None or not places:
        return
    with Guard("estimator", estimator, "readings_of_places", **place_of(places[0])) as guard:
        readings = place_readings_of(guard, compare(places), len(places), declared_by(estimator))
    for number, reading in readings:
        view = places[number]
        placed = replace(reading, labels=_labels_with_place(view, reading.labels))
        yield _row(None, view.level, source, placed)


def _pair_levels(estimator: Estimator, view_estimates: Sequence[tuple[View, Sequence[Estimate]]]) -> Iterator[_Pair]:
    """The estimates of one round both at the owners and after aggregation, over the same examples."""
    places = {(view.level, view.place): (view, estimates) for view, estimates in view_estimates}
    if ("local", "owner") not in places or ("global", "") not in places:
        return
    owner, local = places["local", "owner"]
    view, whole = places["global", ""]
    hidden: BoolArray = np.asarray(np.isnan(owner.margin).all((0, 1)))
    if not np.isnan(view.margin[:, :, hidden]).all():
        view = hide_examples(view, hidden)
        whole = estimates_in_view(estimator, view)
    by_key = {(e.metric, e.labels, e.kind): e for e in whole}
    for e in local:
        other = by_key.get((e.metric, e.labels, e.kind))
        if other is not None:
            yield _Pair(e, other, min(count_clusters(owner, e), count_clusters(view, other)))


def _between_levels(round_number: int | None, pair: _Pair, source: str) -> Measurement:
    local = pair.local
    labels = local.labels.plus(contrast="levels", minus="global")
    return _row(round_number, "global", source, _difference(local, pair.whole, labels, local.n, pair.clusters))


def _retention(sums: _Sums, kind: str, labels: Labels, source: str, *, is_denied: bool) -> Measurement:
    """The ratio of sums over pairs of (round, example)."""
    clusters, n = sums.clusters, sums.n
    if is_denied or not sums.local - half_width(sums.local, sums.of_local, clusters) > 0:
        reading = Reading(metric="retention", value=math.nan, n=n, subject=kind, labels=labels.plus(resolved="no"))
        return _row(None, "global", source, reading)
    low, high = ratio_interval((sums.whole, sums.of_whole), (sums.local, sums.of_local), clusters)
    value = sums.whole / sums.local
    reading = Reading(metric="retention", value=value, low=low, high=high, n=n, subject=kind, labels=labels)
    return _row(None, "global", source, reading)
