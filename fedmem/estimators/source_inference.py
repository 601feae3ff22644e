"""Source inference: naming the client that trained on an example, of the clients of a round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Reading
from fedmem.contracts.series import Series
from fedmem.estimation.attack_series import last_round
from fedmem.estimation.randomisation import num_redeals, of_means, two_sided
from fedmem.estimation.statistics import mean, means_by_coin
from fedmem.estimation.two_way import of_ins, place_among
from fedmem.seeding import stream

_TOPS = (1, 3)

_FLIPS = 2000
"""Random signs of owners, the true ones among them, for p against the label prior."""


@dataclass(frozen=True, kw_only=True)
class SourceInference:
    """How often an attacker who knows that an example was trained on names its owning client (Hu and others, 2021).

    The candidates are the clients of the round of the owner's model. The attacker sees the model of each, and names the
    client of the smallest loss on the example. Clients with equal losses share the guess, so that equal models give
    1/K.

    - `source_inference`: the share of members whose owner is named, or is among three (label `top`). The null is the
      same share over runs without the example, where nobody trained on it. It shows what the label skew of clients
      gives. p is by re-dealt coins, exact;
    - label `rule`: `loss` is that attacker. `size` names the client of the largest log n − loss, with n its number of
      base rows. In the summary, `rounds` names the smallest mean rank of the loss over all rounds of a client;
    - `source_rank`: the share of the other clients whose loss is larger, ties half;
    - `source_over_labels`: the share of members named by `loss`, minus that of an attacker who sees no model. The
      latter names the client with the largest share of the label, (n_y + 1) / (n + C). The two attackers are exchanged
      for all examples of an owner at once, which gives p;
    - `source_baseline`: the shares that the label prior (rule `labels`), the largest client (`size`) and chance
      (`chance`, 1/K) give for the same members.

    Other clients that hold a copy of the example are not candidates. All values are about members: an attacker has to
    infer membership first. Compare published accuracies with `source_baseline`, since the label prior alone may reach
    them.

    Only at the owner, with a roster that runs share. Texts have no label prior, and no sizes.

    Fields: none.

    >>> SourceInference().min_runs
    2

    Reference: Hu, Salcic, Sun, Dobbie and Zhang (2021), Source inference attacks in federated learning.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="source_inference",
            title="source inference",
            means="The share of members whose owning client is named by the losses of all clients of its round. The "
            "null is the same share over runs in which nobody trained on them.",
            is_not="It is not membership inference. A high share may be the label skew of clients alone: compare the "
            "null and source_baseline.",
            unit="share",
            range=(0.0, 1.0),
            order=4,
        ),
        Measure(
            name="source_rank",
            title="clients with a larger loss",
            means="The share of the other clients of the round whose loss on a member is larger than that of the "
            "owning client, ties half.",
            is_not="It is not membership inference.",
            unit="share",
            range=(0.0, 1.0),
            order=4,
        ),
        Measure(
            name="source_over_labels",
            title="source inference minus label prior",
            means="The share of members whose owning client is named by losses, minus the share that is named by the "
            "labels of clients alone.",
            is_not="It is not the effect of training on the example: models also reflect the labels of clients.",
            unit="share",
            range=(-1.0, 1.0),
            null=0.0,
            order=4,
        ),
        Measure(
            name="source_baseline",
            title="source named without models",
            means="The share of members whose owning client is named without any model: by the labels of clients, by "
            "their sizes, or by chance.",
            unit="share",
            range=(0.0, 1.0),
            direction="neither",
            order=4,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "rule",
            "text",
            "by what the client is named",
            titles=(
                ("loss", "by loss"),
                ("size", "by size"),
                ("rounds", "by rank over rounds"),
                ("labels", "by labels"),
                ("chance", "by chance"),
            ),
        ),
        Label("top", "whole", "the number of clients that are named"),
    )
    min_runs: ClassVar[int] = 2

    def estimate(self, view: View) -> Sequence[Estimate]:
        """Per kind: shares by each rule, ranks, and the difference from the label prior."""
        cases = _cases(view)
        if cases is None:
            return ()
        estimates: list[Estimate] = []
        for labels, values in cases.named.items():
            estimates += _against_control(view, "source_inference", labels, values)
        estimates += _against_control(view, "source_rank", Labels(), cases.rank)
        for top in _TOPS:
            prior = cases.baselines.get(Labels.of(rule="labels", top=top))
            if prior is not None:
                gap = cases.named[Labels.of(rule="loss", top=top)] - prior
                estimates += _against_labels(view, Labels.of(top=top), gap)
        return estimates

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """The shares that are named without models, in the summary."""
        cases = _cases(view) if view.round is None else None
        return [] if cases is None else [(None, reading) for reading in _baseline_readings(view, cases)]


@dataclass(frozen=True, kw_only=True)
class _Cases:
    """For each run and example (R, m), NaN where the owner is not observed among others.

    Attributes:
        named: Rule and top -> the probability that the owner is named.
        rank: The share of others whose loss is larger.
        baselines: Rule and top -> the same without any model.
    """

    named: Mapping[Labels, FloatArray]
    rank: FloatArray
    baselines: Mapping[Labels, FloatArray]


def _cases(view: View) -> _Cases | None:
    """The shares of all examples at the round at which the view shows them; None where there are no other clients."""
    if view.others is None or view.place != "owner":
        return None
    shape = view.audit.is_in.shape
    named: dict[Labels, FloatArray] = {}
    baselines: dict[Labels, FloatArray] = {}
    rank = np.full(shape, np.nan)

    def note(
        table: dict[Labels, FloatArray], rule: str, columns: IntArray, own: FloatArray, others: FloatArray
    ) -> None:
        for top in _TOPS:
            labels = Labels.of(rule=rule, top=top)
            table.setdefault(labels, np.full(shape, np.nan))[:, columns] = _share_named(own, others, top)

    until = last_round(view, np.arange(shape[1]))
    mean_ranks = _mean_ranks(view, until) if view.round is None else None
    for position in np.flatnonzero(np.isin(view.others.rounds, until)).tolist():
        columns = np.flatnonzero(until == view.others.rounds[position])
        clients = view.others.clients_at(position)
        others = view.others.at_round("loss", position, columns)
        own = np.where(np.isnan(others).all(0), np.nan, view.loss[:, 0, columns])
        absent = np.where(np.isnan(others), np.nan, 0.0)
        present = np.where(np.isnan(own), np.nan, 0.0)
        owner = view.audit.owner[columns]
        note(named, "loss", columns, own, others)
        rank[:, columns] = _share_above(own, others)
        note(baselines, "chance", columns, present, absent)
        if view.label_counts is not None:
            sizes = np.log(np.maximum(view.label_counts.sum(1), 1e-300))
            shares = -_label_shares(view.label_counts, view.audit.examples.labels[columns])
            note(named, "size", columns, own - sizes[owner], others - sizes[clients][:, None, None])
            note(baselines, "size", columns, present - sizes[owner], absent - sizes[clients][:, None, None])
            own_share = shares[owner, np.arange(len(columns))]
            note(baselines, "labels", columns, present + own_share, absent + shares[clients][:, None])
        if mean_ranks is not None:
            theirs = np.where(np.isnan(others), np.nan, mean_ranks[clients][:, :, columns])
            ours = mean_ranks[owner, :, columns].T
            note(named, "rounds", columns, np.where(np.isnan(own), np.nan, ours), theirs)
    return _Cases(named=named, rank=rank, baselines=baselines) if named else None


def _share_named(own: FloatArray, others: FloatArray, top: int) -> FloatArray:
    """(R, n) the probability that `own` is among the `top` smallest of (K, R, n) others and itself, ties at random."""
    lower, ties = (others < own).sum(0), (others == own).sum(0)
    return np.where(np.isnan(own), np.nan, np.clip((top - lower) / (ties + 1), 0.0, 1.0))


def _share_above(own: FloatArray, others: FloatArray) -> FloatArray:
    """(R, n) the share of others that are larger, ties half."""
    count = (~np.isnan(others)).sum(0)
    above = (others > own).sum(0) + 0.5 * (others == own).sum(0)
    return np.where(np.isnan(own), np.nan, above / np.maximum(count, 1))


def _label_shares(counts: IntArray, labels: IntArray) -> FloatArray:
    """(N, n) the share of each label among the base rows of each client, each label counted once more."""
    return np.asarray((counts[:, labels] + 1) / (counts.sum(1, keepdims=True) + counts.shape[1]))


def _mean_ranks(view: View, until: IntArray) -> FloatArray:
    """(N, R, m) the mean over rounds up to `until` of the rank of the loss of each client among those of the round.

    Ranks are from 0 to 1; a client that holds an example and is not its owner has none.
    """
    assert view.series is not None
    assert view.others is not None
    owner, every = view.audit.owner, np.arange(view.audit.is_in.shape[1])
    clients = max(int(owner.max(initial=0)), int(view.others.client.max(initial=0))) + 1
    total, count = np.zeros((2, clients, *view.audit.is_in.shape))
    own = view.series.loss()
    for position, round_number in enumerate(view.others.rounds.tolist()):
        cube = _losses_of_round(view.others, position, clients)
        cube[owner.clip(0), :, every] = np.where(owner >= 0, own[position], np.nan).T
        ranks = _normalised_ranks(cube)
        is_known = ~np.isnan(ranks) & (round_number <= until)
        total += np.where(is_known, ranks, 0.0)
        count += is_known
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _losses_of_round(others: Series, position: int, clients: int) -> FloatArray:
    """(N, R, m) the losses of all clients of a round that do not hold the example."""
    cube = np.full((clients, *others.is_hidden.shape), np.nan)
    cube[others.clients_at(position)] = others.at_round("loss", position, np.arange(cube.shape[2]))
    return cube


def _normalised_ranks(values: FloatArray) -> FloatArray:
    """Ranks along the first axis from 0 to 1, ties at their middle; NaN where there is no value, or no other one."""
    from scipy.stats import rankdata

    is_known = ~np.isnan(values)
    count = is_known.sum(0)
    ranks = rankdata(np.where(is_known, values, np.inf), axis=0)
    return np.where(is_known & (count > 1), (ranks - 1) / np.maximum(count - 1, 1), np.nan)


def _rows_of_kinds(view: View, values: FloatArray) -> Iterator[tuple[str, IntArray, FloatArray]]:
    """Kind, the examples of the kind with a value on both sides, and the mean over in runs of each."""
    inside, outside = (side[0] for side in means_by_coin(values, view.audit.is_in, np.ones((1, view.audit.runs))))
    for kind in view.audit.kinds:
        rows = np.flatnonzero((view.audit.kind == kind) & ~np.isnan(inside - outside))
        if len(rows):
            yield kind, rows, inside[rows]


def _against_control(view: View, metric: str, labels: Labels, values: FloatArray) -> Iterator[Estimate]:
    """The mean over in runs, with that over out runs as its null."""
    is_in = view.audit.is_in
    outside = mean(np.where(is_in, np.nan, values), axis=0)
    for kind, rows, inside in _rows_of_kinds(view, values):
        yield Estimate(
            metric=metric,
            kind=kind,
            labels=labels,
            value=float(inside.mean()),
            influence=place_among(of_ins(values[:, rows], is_in[:, rows]), rows, len(view.audit)),
            null=float(outside[rows].mean()),
            bounds=(0.0, 1.0),
            n=len(rows),
            p=of_means(values, rows, view.redeals) if view.round is None else math.nan,
            redeals=num_redeals(view.redeals, rows),
            examples=rows,
        )


def _against_labels(view: View, labels: Labels, gap: FloatArray) -> Iterator[Estimate]:
    """The mean over in runs of a difference of two attackers."""
    is_in = view.audit.is_in
    for kind, rows, inside in _rows_of_kinds(view, gap):
        p, flips = _p_of_exchange(inside, view.audit.owner[rows].astype(np.int64), f"{kind} {labels}")
        yield Estimate(
            metric="source_over_labels",
            kind=kind,
            labels=labels,
            value=float(inside.mean()),
            influence=place_among(of_ins(gap[:, rows], is_in[:, rows]), rows, len(view.audit)),
            null=0.0,
            bounds=(-1.0, 1.0),
            n=len(rows),
            p=p if view.round is None else math.nan,
            redeals=flips,
            examples=rows,
            signed=True,
        )


def _p_of_exchange(gaps: FloatArray, owner: IntArray, purpose: str) -> tuple[float, int]:
    """p of the mean of `gaps` (n,) if attackers could be exchanged for each owner, and the number of exchanges."""
    owners, group = np.unique(owner, return_inverse=True)
    sums = np.bincount(group, weights=gaps)
    if 2 ** len(owners) <= _FLIPS:
        signs = 1 - 2.0 * ((np.arange(2 ** len(owners))[:, None] >> np.arange(len(owners))) & 1)
    else:
        signs = stream(0, f"source inference {purpose}").choice([-1.0, 1.0], size=(_FLIPS, len(owners)))
        signs[0] = 1.0
    return two_sided(signs @ sums), len(signs) - 1


def _baseline_readings(view: View, cases: _Cases) -> Iterator[Reading]:
    """The share of members that are named without models, by kind."""
    counted: BoolArray = view.audit.is_in & ~np.isnan(cases.rank)
    for labels, values in cases.baselines.items():
        for kind in view.audit.kinds:
            rows = np.flatnonzero((view.audit.kind == kind) & counted.any(0))
            if len(rows):
                inside = mean(np.where(counted[:, rows], values[:, rows], np.nan), axis=0)
                yield Reading(
                    metric="source_baseline",
                    value=float(inside.mean()),
                    n=len(rows),
                    subject=kind,
                    labels=labels,
                )
