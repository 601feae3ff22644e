"""Inference from updates of whether rows with some property, unrelated to the task, were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt

from fedmem.contracts.arrays import BoolArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.errors import ComponentError
from fedmem.estimation.held_out_pairs import PairArea, pair_area, transfer_area
from fedmem.estimation.randomisation import deals_of
from fedmem.estimation.update_evidence import (
    Updates,
    companions,
    count_clients,
    first_of_coin_rows,
    halves_of,
    sizes_up_to,
    standardise,
    stored_rounds,
    sum_clients,
)
from fedmem.seeding import stream

_DEALS_OF_ROUNDS = 200
"""Re-dealt coins behind p at a single round; the summary has all."""


@dataclass(frozen=True, kw_only=True)
class PropertyInference:
    """How well an update shows whether a client trained on rows with some property.

    The property is an injection: marked images, rows of a subgroup, or any rows with one coin at a client (`included:
    by_client` or `together`). The coin is the label, so every AUC compares runs with the property and runs without
    it. In the latter, other rows replace those with the property.

    - `property_auc`: The probability that a run with the property scores above one without it, at one client, 0 to 1.
      Ties count half, and it is ½ without leakage. n counts runs; of twins, the first counts. The subject is the
      injection. Each client that holds examples is a victim with an attack of its own. Pairs of all victims are
      pooled. The interval is a jackknife over runs (95 %).
    - `property_auc.p`: the share of re-dealt coins whose AUC is at least as large; n counts the deals.

    Places: `clients` = 1 is the message of the victim. Larger numbers are sums with random other clients of the round,
    by the weights of the strategy. At level `global` it is the aggregate minus the one before, which every client sees.
    There are rows for each observed round, and for the summary, which averages the features of all observed rounds.
    With a window (`start`, `stop`), rounds outside it show whether the property is detected where it is not.

    `trained_on` says on whose updates the attack is trained, in other runs. With `own` these are updates of the victim.
    The victim's rows with the property are the same in all runs, so the attack may recognise these rows and not the
    property. With `others`, it is trained on other victims, whose rows are others. What it finds then is common to
    rows with the property. It needs two victims or more, and at level `global` all of them are in one aggregate.

    `statistic` says what the attack reads. `update` are the features of the signal `update_features`, each sort
    divided by its length. `labels` is the control: the number of rows and of each class behind the update. Where it is
    above ½ too, the property comes with labels or quantity, and the update may show only those. It is reported in
    the summary only.

    The attack is granted what no real attacker has: other runs of the same federation, of which it knows whether the
    property was there. It is ridge regression, never trained on the two runs that it compares; see
    `fedmem.estimation.held_out_pairs`. With fewer than two runs on a side after that, the AUC is NaN. Runs without the
    update, and those in which it has diverged or is zero, do not count.

    Fields:
        kinds: Injections that are properties, by name. If left out, these are all whose examples at a client are in or
            out together. Of a named one whose examples are not, more than half must be in.
        sums: Numbers of clients in a sum. Sizes that no round has are left out.
        penalty: The ridge. It is a multiple of the mean variance of features where they vary.
        halvings: Random halvings of the runs, for attacks that are trained on other victims.

    >>> PropertyInference().measures[0].null
    0.5

    References: Melis, Song, De Cristofaro and Shmatikov (2019), Exploiting unintended feature leakage in collaborative
    learning. Ganju, Wang, Yang, Gunter and Borisov (2018), Property inference attacks on fully connected neural
    networks.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="property_auc",
            title="AUC of property inference",
            means="Probability that an attack on updates scores a run with a property above a run without it.",
            is_not="The attack knows other runs of the same federation with and without the property.",
            range=(0.0, 1.0),
            null=0.5,
            direction="higher is worse",
            terms=(("property inference", "finding from an update whether rows with some property were trained on"),),
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "statistic",
            "text",
            "what the attack reads",
            (("update", "features of the update"), ("labels", "rows by class alone")),
        ),
        Label(
            "trained_on",
            "text",
            "the clients whose updates the attack is trained on, in other runs",
            (("own", "the victim"), ("others", "other victims")),
        ),
    )
    min_runs: ClassVar[int] = 8
    needs_test: ClassVar[tuple[Level, ...]] = ("local", "global")
    reads_set_signals: ClassVar[tuple[str, ...]] = ("update_feature",)
    compares_held_out: ClassVar[bool] = True
    counts_groups: ClassVar[bool] = True

    names_injections: ClassVar[tuple[str, ...]] = ("kinds",)

    kinds: tuple[str, ...] = ()
    sums: tuple[Annotated[int, Ge(2)], ...] = (2, 5, 10)
    penalty: Annotated[float, Gt(0)] = 1.0
    halvings: Annotated[int, Ge(1)] = 4

    def __post_init__(self) -> None:
        for name in ("kinds", "sums"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ComponentError(name, f"{list(values)} names one twice; name each once")

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: an AUC of runs is no mean over examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """By kind, number of clients and what the attack reads."""
        test = view.sets.get("test")
        if test is None or view.round == 0 or view.place not in ("owner", ""):
            return ()
        clients = 0 if view.level == "global" else count_clients(test)
        updates = Updates.of(test, view.audit.runs, stored_rounds(test, view.round), clients)
        if updates is None:
            return ()
        readings: list[Reading] = []
        for kind in self._kinds(view.audit):
            readings += self._of_kind(view, kind, updates)
        return [(None, reading) for reading in readings]

    def _kinds(self, audit: AuditSet) -> Iterator[str]:
        for kind in audit.kinds:
            if kind in self.kinds or (not self.kinds and _has_one_coin(audit, kind)):
                yield kind

    def _of_kind(self, view: View, kind: str, updates: Updates) -> Iterator[Reading]:
        rows = np.flatnonzero((view.audit.kind == kind) & (view.audit.owner >= 0))
        first = first_of_coin_rows(view.audit.coin_rows)
        deals = deals_of(view.redeals, rows, None if view.round is None else _DEALS_OF_ROUNDS + 1)[:, first]
        owners = view.audit.owner[rows]
        labels = {int(owner): deals[:, :, owners == owner].mean(axis=2) > 0.5 for owner in np.unique(owners)}
        is_there = updates.is_there
        sizes = sizes_up_to(self.sums, is_there) if view.level == "local" else [1]
        for size in sizes:
            groups, control = [], []
            for victim, dealt in labels.items():
                members = _members(view, updates, is_there, victim, size)
                features, facts = sum_clients(updates, members)
                groups.append((features[first], dealt))
                control.append((standardise(facts[first]), dealt))
            place = Labels.of(clients=size if view.level == "local" else None)
            read = {"update": groups, "labels": control} if view.round is None else {"update": groups}
            for name, parts in read.items():
                own, others = (place.plus(statistic=name, trained_on=whose) for whose in ("own", "others"))
                yield from _readings(kind, own, pair_area(parts, self.penalty))
                if len(parts) > 1:
                    halves = halves_of(len(first), self.halvings, stream(0, "halves of runs"))
                    yield from _readings(kind, others, transfer_area(parts, self.penalty, halves))


def _members(view: View, updates: Updates, is_there: BoolArray, victim: int, size: int) -> BoolArray:
    """(S, R, N) the clients behind the update of a place, in runs that have the victim."""
    if view.level == "global":
        members = is_there
    else:
        # the same companions in sums of all sizes, whatever the coins
        members = companions(is_there, victim, size, stream(0, "companions of a victim", client=victim))
    has_victim = np.ones(view.audit.runs, bool) if view.audit.client_in is None else view.audit.client_in[:, victim]
    return np.asarray(members & has_victim[None, :, None])


def _readings(kind: str, labels: Labels, area: PairArea) -> Iterator[Reading]:
    yield Reading(
        metric="property_auc", value=area.value, low=area.low, high=area.high, n=area.n, subject=kind, labels=labels
    )
    if not math.isnan(area.p):
        yield Reading(metric="property_auc.p", value=area.p, n=area.deals, subject=kind, labels=labels)


def _has_one_coin(audit: AuditSet, kind: str) -> bool:
    """Whether all examples of a kind at one client are in or out together."""
    rows = np.flatnonzero((audit.kind == kind) & (audit.owner >= 0))
    owners = audit.owner[rows]
    return bool(len(rows)) and all(audit.num_coin_groups(rows[owners == k]) == 1 for k in np.unique(owners))
