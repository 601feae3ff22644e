"""Inference from updates of whether most rows of a client have some value, such as a sex or a party."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.errors import ComponentError
from fedmem.estimation.client_pairs import client_area
from fedmem.estimation.held_out_pairs import PairArea
from fedmem.estimation.statistics import mean
from fedmem.estimation.update_evidence import (
    Updates,
    companions,
    count_clients,
    first_of_coin_rows,
    halves_of,
    sizes_up_to,
    standardise,
    stored_columns,
    stored_rounds,
    sum_clients,
)
from fedmem.seeding import stream


@dataclass(frozen=True, kw_only=True)
class ClientAttribute:
    """How well the update of a client shows whether most of its rows have some value, such as a sex or a party.

    The signal `row_share` names the column and the value. A client is positive if its mean share of rows with the value
    is above `threshold`. The label belongs to the client, and is not random.

    - `client_attribute_auc`: The probability that a positive client scores above a negative one in one run, 0 to 1.
      Ties count half, and it is ½ without leakage. n counts clients, which are few. So the interval (95 %) is by
      clients, see `fedmem.estimation.client_pairs`.
    - `client_attribute_auc.p`: the share of permuted labels of clients with an AUC at least as large; n counts the
      permutations.

    `clients` = 1 is the message. Larger numbers are sums with random other clients of the round. A sum that the attack
    trains on has neither client of the pair, and a sum that it scores has one. All clients of a round have the same
    aggregate, so that there the AUC is ½ by construction, and has no row. Features are averaged over the observed
    rounds.

    `statistic` says what the attack reads. `update` are the features of the signal `update_features`, each sort
    divided by its length. `labels` is the control: the client's number of rows and of each class alone. Where both are
    above ½, labels or quantity come with the attribute.

    The attack is granted other runs of the same federation, and the labels of all clients but the two that it compares.
    It is ridge regression, trained on other clients in other runs. Of twins, the first counts. The AUC is NaN with
    fewer than two clients on a side. Clients without rows, and updates that have diverged or are zero, do not count.

    Fields:
        threshold: Of the share.
        sums: Numbers of clients in a sum. Sizes above those of a round without the pair are left out.
        penalty: The ridge. It is a multiple of the mean variance of features where they vary.
        halvings: Random halvings of the runs.

    >>> ClientAttribute().reads_set_signals
    ('update_feature', 'row_share')

    References: Feng, Hashemi, Hebbar, Annavaram and Narayanan (2021), Attribute inference attack of speech emotion
    recognition in federated learning settings. Ojala and Garriga (2010), Permutation tests for studying classifier
    performance.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="client_attribute_auc",
            title="AUC of client attributes",
            means="Probability that an attack on updates scores a client with a value in most rows above one without.",
            is_not="It is no memorisation of rows: the attribute is a fact about the distribution of a client.",
            range=(0.0, 1.0),
            null=0.5,
            direction="higher is worse",
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label(
            "statistic",
            "text",
            "what the attack reads",
            (("update", "features of the update"), ("labels", "rows by class alone")),
        ),
    )
    min_runs: ClassVar[int] = 4
    needs_test: ClassVar[tuple[Level, ...]] = ("local",)
    reads_set_signals: ClassVar[tuple[str, ...]] = ("update_feature", "row_share")
    counts_groups: ClassVar[bool] = True

    threshold: Annotated[float, Ge(0), Le(1)] = 0.5
    sums: tuple[Annotated[int, Ge(2)], ...] = (2, 5, 10)
    penalty: Annotated[float, Gt(0)] = 1.0
    halvings: Annotated[int, Ge(1)] = 1

    def __post_init__(self) -> None:
        if len(set(self.sums)) < len(self.sums):
            raise ComponentError("sums", f"{list(self.sums)} names a size twice; name each once")

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: this is about clients, not about kinds of audit examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """By number of clients and what the attack reads, in the summary."""
        test = view.sets.get("test")
        if view.round is not None or view.place != "owner" or test is None:
            return ()
        runs, rounds, clients = view.audit.runs, stored_rounds(test, None), count_clients(test)
        updates = Updates.of(test, runs, rounds, clients)
        shares = stored_columns(test, "row_share.", runs, rounds, clients)
        if updates is None or "rows" not in shares:
            return ()
        share = mean(shares["rows"].reshape(-1, clients), axis=0)
        listed = np.flatnonzero(np.isfinite(share) & updates.is_there.any(axis=(0, 1)))
        first = first_of_coin_rows(view.audit.coin_rows)
        return [(None, reading) for reading in self._readings(updates.take(first, listed), share[listed])]

    def _readings(self, updates: Updates, share: FloatArray) -> Iterator[Reading]:
        is_there = updates.is_there
        runs, is_positive = is_there.shape[1], share > self.threshold
        # sums of the fit are without both clients of the pair
        sizes = sizes_up_to(self.sums, is_there[:, :, 2:]) if len(share) else []
        for size in sizes:
            for number, name in enumerate(("update", "labels")):
                area = client_area(
                    _Features(updates, is_there, size, number),
                    is_positive,
                    self.penalty,
                    halves_of(runs, self.halvings, stream(0, "halves of runs")),
                    stream(0, "deals of client labels"),
                )
                yield from _of_area(area, Labels.of(clients=size, statistic=name))


class _Features:
    """The features of sums with a client in all runs, without the rest of a pair; those of messages are kept."""

    def __init__(self, updates: Updates, is_there: BoolArray, size: int, number: int) -> None:
        self._updates, self._is_there, self._size, self._number = updates, is_there, size, number
        self._kept: dict[int, FloatArray] = {}

    def __call__(self, pair: tuple[int, int], client: int) -> FloatArray:
        if client not in self._kept or self._size > 1:
            others = np.setdiff1d(np.array(pair, dtype=np.int64), [client]) if self._size > 1 else np.zeros(0, np.int64)
            self._kept[client] = self._of_sum(client, others)
        return self._kept[client]

    def _of_sum(self, client: int, away: IntArray) -> FloatArray:
        is_there = self._is_there.copy()
        is_there[:, :, away] = False
        members = companions(is_there, client, self._size, stream(0, "companions of a client", client=client))
        values = sum_clients(self._updates, members)[self._number]
        return values if self._number == 0 else values / self._spread

    @property
    def _spread(self) -> FloatArray:
        """(C + 1,) the standard deviation of facts over clients, rounds and runs, by which they are comparable."""
        facts = self._updates.facts[self._is_there]
        scaled = standardise(facts)
        spread = facts.std(axis=0)
        return np.asarray(np.where(np.abs(scaled).max(axis=0, initial=0.0) > 0, spread, np.inf))


def _of_area(area: PairArea, labels: Labels) -> Iterator[Reading]:
    metric = "client_attribute_auc"
    yield Reading(metric=metric, value=area.value, low=area.low, high=area.high, n=area.n, labels=labels)
    if not math.isnan(area.p):
        yield Reading(metric=f"{metric}.p", value=area.p, n=area.deals, labels=labels)
