"""Whether proxies rank examples as memorisation does, at each place, from runs that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, ExampleValues, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.estimation.rank_agreement import (
    Halves,
    RankAgreement,
    Ranks,
    Resampling,
    Variant,
    difference,
    partial_out,
    rank_agreement,
)
from fedmem.estimation.statistics import holm, mean
from fedmem.seeding import stream

ALL = "all"
"""The subject of a row over the examples of all kinds."""

_VARIANTS: tuple[Variant, ...] = ("in", "out", "gain")

MEMORISATION = "memorisation"
"""The target that is always there."""

_GIVEN = "class and owner"

_LEVELS: tuple[tuple[Level, str], ...] = (("local", "owner"), ("global", ""))
"""The level and place of the two views whose difference is taken."""

_SHUFFLES_EACH = 50
"""Shuffles for each row of a family, so that p adjusted by Holm can be as small as 1/50."""

_FEWEST_SHUFFLES = 999
"""The fewest shuffles of any row."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well proxies rank examples as memorisation and other targets do, in the summary, at each place.

    Proxies are all signals, and all estimators that give values of single examples in each run. The final loss is one
    more. Each has three variants (label `statistic`), as in the table of proxies. `in` is over runs with the example,
    `out` is over runs without it, and `gain` is the difference.

    The label `target` says what proxies are compared with. It is memorisation by probability, and each target that
    another estimator of the scenario gives. These are the exposure of canaries (`exposure`), and the success of an
    attack on single examples (`vulnerability`). With those, memorisation is one more proxy.

    Values from the same runs share their noise. So runs are split into halves. Memorisation is taken from one half and
    the proxy from the other, and the correlation is corrected for the noise of both; see
    `fedmem.estimation.rank_agreement`.

    - `agreement`: the corrected rank correlation, −1 to 1. It is undefined where the ranks of memorisation or of the
      proxy hardly repeat in other runs. The interval is over examples, or over owners where eight or more hold some;
    - `agreement_split`: the correlation before the correction, too small where there is a relation;
    - `agreement.p`: p of no relation by shuffled examples, adjusted by Holm over the rows of a kind and a target, at
      all places. Rows with `given` are adjusted apart from those without;
    - `agreement.difference`: the agreement at the owner minus that in the aggregate, or (`minus` = `loss`) the size of
      an agreement minus that of the final loss. The interval is from the same draws of examples;
    - `reliability`: how well the ranks of a quantity repeat in other runs.

    Rows are by kind, and over all kinds together (`all`), where most of a correlation may be that kinds differ. With
    the label `given`, ranks are first freed of the label and of the owner's number of audit examples.

    Fields:
        halvings: random halvings of the runs.
        min_examples: the fewest examples of a kind that has rows.

    >>> Agreement().min_runs
    16

    Reference: Feldman and Zhang (2020), for memorisation. Spearman (1904), for the correction.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="agreement",
            title="agreement of ranks",
            means="Rank correlation over examples of a proxy with memorisation, or with another target. They come from "
            "different runs, and the correlation is corrected for their noise.",
            is_not="It does not say that a proxy is as large as memorisation, or that it causes it.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
        ),
        Measure(
            name="agreement_split",
            title="agreement of ranks, not corrected",
            means="Rank correlation of a proxy with memorisation, or with another target, from other runs. It is not "
            "corrected for noise.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
        ),
        Measure(
            name="reliability",
            title="reliability",
            means="Rank correlation of a quantity with itself from other runs.",
            is_not="It does not say whether the quantity is right.",
            range=(-1.0, 1.0),
            direction="neither",
            digits=2,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("target", "text", "the quantity that a proxy is compared with"),
        Label("given", "text", "what the ranks of both quantities are freed of before they are compared"),
    )
    min_runs: ClassVar[int] = 16
    reads_quantities: ClassVar[bool] = True

    halvings: Annotated[int, Ge(2)] = 10
    min_examples: Annotated[int, Ge(3)] = 20

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: a correlation is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """None: p is adjusted over all places, see `readings_of_places`."""
        return ()

    def readings_of_places(self, views: Sequence[View]) -> Sequence[tuple[int, Reading]]:
        """The rows of all places, each with the number of its view."""
        audit = views[0].audit
        halves = Halves.draw(audit.is_in, self.halvings, stream(0, "agreement halves"), audit.coin_rows)
        places = [_quantities(view, halves) for view in views]
        shuffles = _SHUFFLES_EACH * sum(len(quantities.proxies) for quantities in places)
        readings: list[tuple[int, Reading]] = []
        for kind, rows in _groups(audit).items():
            if len(rows) < self.min_examples:
                continue
            resampling = Resampling.draw(
                audit.owner[rows].astype(np.int64),
                stream(0, f"agreement {kind}"),
                shuffles=max(_FEWEST_SHUFFLES, shuffles),
            )
            group = _Group(kind=kind, rows=rows, resampling=resampling, fewest=self.min_examples)
            for given in ("",) if kind == ALL else ("", _GIVEN):
                for family in group.families(views, places, given).values():
                    readings += _family(kind, views, family)
        return readings


_Family = dict[tuple[int, Labels], RankAgreement]
"""The rows whose p are adjusted together, by number of the view and labels."""


@dataclass(frozen=True, kw_only=True)
class _Quantities:
    """The quantities of one place, (2, H, m) each, from half A and half B of the runs; targets by label."""

    targets: Mapping[str, FloatArray]
    proxies: Mapping[Labels, FloatArray]


def _quantities(view: View, halves: Halves) -> _Quantities:
    with np.errstate(invalid="ignore"):
        probability = ExampleValues(metric=MEMORISATION, values=mean(np.exp(-np.logaddexp(0.0, -view.margin)), axis=1))
    final_loss = ExampleValues(metric="loss", values=mean(view.loss, axis=1))
    proxies = {}
    # memorisation itself is compared with the other targets
    for quantity in (final_loss, *view.quantities, *((probability,) if view.targets else ())):
        for variant in _VARIANTS:
            labels = Labels.of(of=quantity.metric, statistic=variant, options=str(quantity.labels) or None)
            proxies[labels] = halves.means(quantity.values, variant)
    targets = {MEMORISATION: halves.means(probability.values, "gain")}
    for target in view.targets:
        name = " ".join([target.metric, *target.labels.words()])
        targets[name] = np.stack([[target.from_runs(half) for half in side] for side in (halves.first, ~halves.first)])
    return _Quantities(targets=targets, proxies=proxies)


def _groups(audit: AuditSet) -> dict[str, IntArray]:
    """The examples of each kind, and all of them where there are several kinds."""
    groups = {kind: np.flatnonzero(audit.kind == kind) for kind in audit.kinds}
    return {**groups, ALL: np.arange(len(audit))} if len(audit.kinds) > 1 else groups


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The examples of one kind or of all, with the draws that all their rows share."""

    kind: str
    rows: IntArray
    resampling: Resampling
    fewest: int

    def families(self, views: Sequence[View], places: Sequence[_Quantities], given: str) -> Mapping[str, _Family]:
        """The agreement of each proxy at each place, by target."""
        families: dict[str, _Family] = {}
        for number, (view, quantities) in enumerate(zip(views, places, strict=True)):
            targets: dict[tuple[str, bytes], Ranks] = {}
            for labels, proxy in quantities.proxies.items():
                ranks: dict[bytes, Ranks] = {}
                for target, values in quantities.targets.items():
                    is_usable = self._usable(view, values, proxy)
                    if labels.get("of") == target or not is_usable.any():
                        continue
                    free = _columns(view, self.rows[is_usable]) if given else {}
                    if len(free) >= np.count_nonzero(is_usable) // 2:  # too few examples to free them of so much
                        continue
                    key = is_usable.tobytes()
                    if (target, key) not in targets:
                        targets[target, key] = self._ranks(values, is_usable, free)
                    if key not in ranks:
                        ranks[key] = self._ranks(proxy, is_usable, free)
                    row = labels.plus(target=target, given=given)
                    clusters = self.resampling.clusters[is_usable]
                    found = rank_agreement(targets[target, key], ranks[key], self.resampling.shuffles, clusters)
                    families.setdefault(target, {})[number, row] = found
        return families

    def _usable(self, view: View, *quantities: FloatArray) -> BoolArray:
        """The examples with all quantities; none with too few, or if `all` has no more than one kind has."""
        is_known = [~np.isnan(values[:, :, self.rows]).any((0, 1)) for values in quantities]
        is_usable = np.logical_and.reduce(is_known)
        kinds = np.unique(view.audit.kind[self.rows[is_usable]])
        is_enough = np.count_nonzero(is_usable) >= self.fewest and (self.kind != ALL or len(kinds) > 1)
        return np.asarray(is_usable & is_enough)

    def _ranks(self, values: FloatArray, is_usable: BoolArray, free: Mapping[str, FloatArray]) -> Ranks:
        values = values[:, :, self.rows[is_usable]]
        return Ranks.of(partial_out(values, free) if free else values, self.resampling.weights[is_usable])


def _family(kind: str, views: Sequence[View], family: _Family) -> Iterator[tuple[int, Reading]]:
    """The rows of one kind and target at all places, whose p are adjusted together, and their differences."""
    adjusted = holm([found.p for found in family.values()])
    for ((number, labels), found), p in zip(family.items(), adjusted.tolist(), strict=True):
        yield from ((number, reading) for reading in _readings(kind, labels, found, p))
    yield from _differences(kind, views, family)


def _differences(kind: str, views: Sequence[View], by_row: _Family) -> Iterator[tuple[int, Reading]]:
    """Owner minus aggregate for each proxy, and each proxy minus the final loss at each place, in size."""
    numbers = {(view.level, view.place): number for number, view in enumerate(views)}
    owner, whole = (numbers.get(place, -1) for place in _LEVELS)
    for (number, labels), found in by_row.items():
        other = by_row.get((whole, labels)) if number == owner else None
        if other is not None:
            yield from _difference(whole, kind, labels.plus(contrast="levels", minus="global"), (found, other))
        loss = by_row.get((number, labels.plus(of="loss", options=None)))
        if loss is not None and loss is not found:
            yield from _difference(number, kind, labels.plus(contrast="proxies", minus="loss"), (found, loss))


def _difference(
    number: int, kind: str, labels: Labels, pair: tuple[RankAgreement, RankAgreement]
) -> Iterator[tuple[int, Reading]]:
    """The difference of two agreements over the same examples; none where one is undefined."""
    value, low, high = difference(*pair, in_size=labels.text("contrast") == "proxies")
    if pair[0].n == pair[1].n and not math.isnan(value):
        n, metric = pair[0].n, "agreement.difference"
        yield number, Reading(metric=metric, value=value, low=low, high=high, n=n, subject=kind, labels=labels)


def _columns(view: View, rows: IntArray) -> dict[str, FloatArray]:
    """One column for each label but the first, and the number of audit examples of the owner."""
    labels = view.audit.examples.labels[rows]
    owners = view.audit.owner
    held = np.array([np.count_nonzero(owners == owner) for owner in owners[rows]], dtype=np.float64)
    columns = {f"label {label}": (labels == label).astype(np.float64) for label in np.unique(labels)[1:]}
    return {**columns, "held": held} if np.ptp(held) > 0 else columns


def _readings(kind: str, labels: Labels, found: RankAgreement, p: float) -> Iterator[Reading]:
    values = {"agreement.p": p, "agreement_split": found.split, "reliability": found.other_reliability}
    yield Reading(
        metric="agreement",
        value=found.corrected,
        low=found.low,
        high=found.high,
        n=found.n,
        subject=kind,
        labels=labels,
    )
    for metric, value in values.items():
        yield Reading(metric=metric, value=value, n=found.n, subject=kind, labels=labels)
