"""Client-level influence: what the aggregate is worth with a client and without it, by random inclusion of clients."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, SetEvidence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.estimation.statistics import jackknife, mean, means_by_coin, student


@dataclass(frozen=True, kw_only=True)
class ClientInfluence:
    """Influence of whole clients: mean over the runs that have a client − mean over the runs that have not.

    Clients are left out by coins of their own (`leave_out`), each from half of the runs and independently. So the other
    clients are there half of the time on both sides. Coins of ½ give every set of the other listed clients the same
    weight. So this estimates the Banzhaf value of a client (Wang and Jia, 2023), and not the loss from removing it from
    a full federation.

    Metric `client_influence`, in the summary, at level `global`, over all runs. Subject `client k`, by `statistic`:

    - `accuracy`, `loss`: of the last aggregate on the test set; a useful client has a positive accuracy and a negative
      loss. −1 to 1, and nats. With the label `target` accuracy on test examples of that class;
    - `own`: correctness on the client's own audit examples, in or out, at the last observed aggregate. It shows how
      much better the aggregate answers this client's examples because the client took part. Members and non-members are
      half each;
    - `own_in`: the same over the examples whose coin is in. A missing client has trained on none of them. So this is
      the memorisation of the client's examples together with all that its other rows teach about them.

    Intervals (95 %) are Welch's, over runs; n counts runs. They hold for one client each: of 20 clients without any
    influence, one is expected to have an interval that excludes 0. The empty subject is the mean over clients, whose
    interval is a jackknife that leaves out run after run; there n counts clients.

    - where a side has a single run, or nothing varies, there is no interval;
    - the mean has none where runs are fewer than clients. The effect of a run is common to all clients, and R such sums
      no longer show how they vary. In simulations 95 to 99 % of intervals hold a mean of 0. If all clients have the
      same influence, half as large as the noise between 8 to 32 runs, about 90 % hold its mean.

    Fields: none.

    >>> ClientInfluence().min_runs
    4
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="client_influence",
            title="client influence",
            means="How much better the aggregate of the last observed round is in runs with a client than in runs "
            "that leave it out at random. The other clients are there half of the time on both sides.",
            is_not="It is not the loss of a full federation without the client.",
            null=0.0,
            direction="neither",
            section="client influence",
            order=6,
            terms=(
                ("client influence", "the value of the aggregate with a client minus that without the client"),
                ("own examples", "answers to the audit examples that belong to the client, right or wrong"),
            ),
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "statistic",
            "text",
            "what the aggregate is read at",
            (
                ("accuracy", "test accuracy"),
                ("loss", "test loss, nats"),
                ("own", "own examples"),
                ("own_in", "own examples that are in"),
            ),
        ),
        Label("target", "whole", "the class of the test examples that are read", is_class=True),
    )
    needs_independent_runs: ClassVar[bool] = True
    min_runs: ClassVar[int] = 4
    counts_groups: ClassVar[bool] = True
    needs_test: ClassVar[tuple[Level, ...]] = ("global",)
    compares_clients: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: this is about clients, not about kinds of audit examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Every client and their mean, statistic by statistic."""
        client_in = view.audit.client_in
        if view.round is not None or view.level != "global" or client_in is None:
            return ()
        readings: list[tuple[int | None, Reading]] = []
        for labels, values in _measured_values(view, client_in.shape[1]):
            readings += [(None, reading) for reading in _mean_differences(labels, values, client_in)]
        return readings


def _measured_values(view: View, clients: int) -> Iterator[tuple[Labels, FloatArray]]:
    """The compared values (R, N) of every run, for each client; NaN where there is none."""
    test, audit = view.sets.get("test"), view.sets.get("audit")
    if test is not None and test.size:
        loss, correct = _last_aggregate(test)
        for statistic, values in (("accuracy", correct), ("loss", loss)):
            yield Labels.of(statistic=statistic), _for_all(values.mean(1), clients)
        for label in np.unique(test.targets).tolist():
            yield (
                Labels.of(statistic="accuracy", target=label),
                _for_all(correct[:, test.targets == label].mean(1), clients),
            )
    if audit is not None and audit.size:
        _, correct = _last_aggregate(audit)
        for statistic, values in (("own", correct), ("own_in", np.where(view.audit.is_in, correct, np.nan))):
            owned = [mean(values[:, is_held], axis=1) for is_held in view.audit.holds(range(clients))]
            yield Labels.of(statistic=statistic), np.stack(owned, axis=1)


def _last_aggregate(evidence: SetEvidence) -> tuple[FloatArray, FloatArray]:
    """Losses and correctness (R, n) at the last observed aggregate, NaN in runs that have diverged."""
    pair = len(evidence.models.round) - 1
    loss = evidence.loss(pair)
    return loss, np.where(np.isnan(loss), np.nan, evidence.correct(pair))


def _for_all(values: FloatArray, clients: int) -> FloatArray:
    """The same value (R,) for each client (R, N)."""
    return np.repeat(values[:, None], clients, axis=1)


def _mean_differences(labels: Labels, values: FloatArray, client_in: BoolArray) -> Iterator[Reading]:
    """With less without, client by client and on average."""
    has_values = ~np.isnan(values).all(1)
    if not has_values.any():
        return
    values, client_in = values[has_values], client_in[has_values]
    # All runs in the first row, then all but one of them.
    inside, outside = means_by_coin(values, client_in, np.vstack([np.ones(len(client_in)), 1 - np.eye(len(client_in))]))
    listed = np.flatnonzero(~np.isnan(inside[0] - outside[0]))
    for client in listed.tolist():
        client_values, coin = values[:, client], client_in[:, client]
        gap, low, high = student(client_values[coin], client_values[~coin])
        n, subject = int((~np.isnan(client_values)).sum()), f"client {client}"
        yield Reading(metric=_METRIC, value=gap, low=low, high=high, n=n, subject=subject, labels=labels)
    if len(listed):
        means = (inside - outside)[:, listed].mean(1)
        low, high = jackknife(float(means[0]), means[1:]) if len(client_in) >= len(listed) else (math.nan, math.nan)
        yield Reading(metric=_METRIC, value=float(means[0]), low=low, high=high, n=len(listed), labels=labels)


_METRIC = "client_influence"
