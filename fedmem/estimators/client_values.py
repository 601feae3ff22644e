"""Values of clients from single runs, and whether they rank clients as retraining without them does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Estimate, SetEvidence, View
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Labels, Level, Reading
from fedmem.errors import ComponentError
from fedmem.estimation.client_agreement import client_agreement
from fedmem.estimation.statistics import jackknife, mean, student_mean
from fedmem.estimation.twins import average_twins
from fedmem.seeding import stream

_OF_ROUNDS: Literal["client_value"] = "client_value"
"""The signal whose values are summed over rounds."""

_UTILITIES = ("accuracy", "loss")

_PARTICIPATIONS = "participations"


@dataclass(frozen=True, kw_only=True)
class ClientValues:
    """Values of clients that the signals `client_value` and `fed_influence` compute in single runs, at the aggregate.

    - `client_value`: of each client (subject `client k`), the mean over the runs that have it. The label `valuation`
      says how it was computed, and `statistic` of which utility: test `accuracy`, or the fall of the test `loss` in
      nats. A positive value means a useful client. There are rows for each observed round, of the rounds up to it, and
      for the summary. Intervals (95 %) are Student's over runs, NaN with a single run; n counts runs, and twins
      once. The empty subject is the mean over clients, with a jackknife over runs; there n counts clients.
    - `client_value_per_participation`: the value divided by the number of rounds with the client, in the summary. A
      sum over rounds grows with these. It is not formed for `completed` and `fed_influence`, which count no rounds.

    With `leave_out`, values are compared with those by retraining, the Banzhaf values of `client_influence`, in the
    summary. Both share the noise of their runs. So values come from one half of the runs and those by retraining from
    the other, see `fedmem.estimation.client_agreement`.

    - `client_agreement`: the rank correlation over clients of values and values by retraining, the mean over halvings.
      The interval is by a jackknife over clients; n counts clients. It is too small where halves are noisy;
    - `client_agreement.p`: p of no relation, by shuffled clients;
    - `client_agreement_corrected`: the correlation corrected for the noise of both, undefined where one of them hardly
      repeats in the other half;
    - `client_reliability`: how well the ranks of the values repeat in the other half. With the valuation `retraining`,
      those of the values by retraining.

    The utility is read on the test examples that `client_influence` reads. Nothing is fitted to them. After clients are
    removed by these values, judge the result on other examples.

    A run in which a value or the utility has diverged does not count. Fewer than 8 runs, or fewer than 4 clients that
    are in and out on both sides, have no agreement.

    Fields:
        signals: which signals to read; each must be in the scenario.
        halvings: random halvings of the runs.

    >>> ClientValues().reads_set_signals
    ('client_value',)

    References: Wang and Jia (2023), Data Banzhaf. Spearman (1904), for the correction.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="client_value",
            title="client value",
            means="How much the models that a client sent add to the utility of the aggregate on the test set, "
            "computed in single runs.",
            is_not="It is not what retraining without the client would change.",
            null=0.0,
            direction="neither",
            digits=4,
            section="client influence",
            order=7,
            terms=(("client value", "what a client's models add to the aggregate, without retraining"),),
        ),
        Measure(
            name="client_value_per_participation",
            title="client value per participation",
            means="The client value divided by the number of rounds with the client.",
            null=0.0,
            direction="neither",
            digits=4,
            section="client influence",
            order=8,
        ),
        Measure(
            name="client_agreement",
            title="agreement with retraining",
            means="Rank correlation over clients of values from single runs with values by retraining, from other "
            "runs.",
            is_not="It does not say that both are equally large.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
            section="client influence",
            order=8,
        ),
        Measure(
            name="client_agreement_corrected",
            title="agreement with retraining, corrected for noise",
            means="Rank correlation over clients of values from single runs with values by retraining, corrected for "
            "the noise of both.",
            range=(-1.0, 1.0),
            null=0.0,
            direction="neither",
            digits=2,
            section="client influence",
            order=8,
        ),
        Measure(
            name="client_reliability",
            title="reliability of client values",
            means="Rank correlation over clients of a value with itself from other runs.",
            is_not="It does not say whether the value is right.",
            range=(-1.0, 1.0),
            direction="neither",
            digits=2,
            section="client influence",
            order=9,
        ),
    )
    row_labels: ClassVar[tuple[Label, ...]] = (
        Label("valuation", "text", "how the value of a client is computed"),
        Label(
            "statistic",
            "text",
            "the utility whose change is the value",
            (("accuracy", "test accuracy"), ("loss", "fall of test loss, nats")),
        ),
    )
    needs_test: ClassVar[tuple[Level, ...]] = ("global",)
    counts_groups: ClassVar[bool] = True

    signals: tuple[Literal["client_value", "fed_influence"], ...] = (_OF_ROUNDS,)
    halvings: Annotated[int, Ge(2)] = 20

    def __post_init__(self) -> None:
        if not self.signals or len(set(self.signals)) < len(self.signals):
            raise ComponentError("signals", f"{list(self.signals)} should name one signal or both, each once")

    @property
    def reads_set_signals(self) -> tuple[str, ...]:
        """Those that are asked for."""
        return self.signals

    def estimate(self, view: View) -> Sequence[Estimate]:
        """None: this is about clients, not about kinds of audit examples."""
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Every client and their mean, and the agreement with retraining, by valuation and utility."""
        test = view.sets.get("test")
        if view.level != "global" or view.round == 0 or test is None or not test.size:
            return ()
        client_in = view.audit.client_in
        readings: list[Reading] = []
        for labels, values, participations in self._values(test, client_in):
            readings += _means("client_value", labels, values, view.audit)
            if view.round is None and participations is not None:
                per_participation = np.where(participations > 0, values / np.maximum(participations, 1.0), np.nan)
                readings += _means("client_value_per_participation", labels, per_participation, view.audit)
            if view.round is None and client_in is not None and len(values) >= _RUNS:
                readings += self._agreement(view, labels, values, client_in)
        return [(None, reading) for reading in readings]

    def _values(
        self, test: SetEvidence, client_in: BoolArray | None
    ) -> Iterator[tuple[Labels, FloatArray, FloatArray | None]]:
        """The values (R, N) by valuation and utility, NaN in runs without the client, and the rounds with it."""
        pair = len(test.models.round) - 1
        stored = {block.name for block in test.signals}
        for signal in self.signals:
            participations = _by_client(test, pair, f"{signal}.{_PARTICIPATIONS}")
            found = dict.fromkeys(name.split(".")[1] for name in sorted(stored) if name.startswith(f"{signal}."))
            for valuation in found:
                for utility in _UTILITIES if valuation != _PARTICIPATIONS else ():
                    values = _by_client(test, pair, f"{signal}.{valuation}.{utility}")
                    if values is None:
                        continue
                    values = values if client_in is None else np.where(client_in, values, np.nan)
                    name = valuation if signal == _OF_ROUNDS else f"{signal}_{valuation}"
                    counted = participations if signal == _OF_ROUNDS and valuation != "completed" else None
                    yield Labels.of(valuation=name, statistic=utility), values, counted

    def _agreement(self, view: View, labels: Labels, values: FloatArray, client_in: BoolArray) -> Iterator[Reading]:
        utility = _utility(view.sets["test"], labels.text("statistic"))
        # the same halvings for all valuations
        rng = stream(0, "client values halves")
        rows = view.audit.coin_rows
        found = client_agreement(values, utility, client_in, rng, halvings=self.halvings, coin_rows=rows)
        if found is None:
            return
        ranks, n, retrained = found.ranks, found.n, labels.plus(valuation="retraining")
        yield Reading(metric="client_agreement", value=found.split, low=found.low, high=found.high, n=n, labels=labels)
        yield Reading(metric="client_agreement.p", value=ranks.p, n=n, labels=labels)
        yield Reading(
            metric="client_agreement_corrected",
            value=ranks.corrected,
            low=ranks.low,
            high=ranks.high,
            n=n,
            labels=labels,
        )
        yield Reading(metric="client_reliability", value=ranks.other_reliability, n=n, labels=labels)
        yield Reading(metric="client_reliability", value=ranks.reliability, n=n, labels=retrained)


_RUNS = 8
"""The fewest runs with an agreement."""


def _by_client(test: SetEvidence, pair: int, start: str) -> FloatArray | None:
    """(R, N) the means over test examples of a signal with a variant `start.CLIENT` for each client; None without."""
    clients = sum(block.name.rpartition(".")[0] == start for block in test.signals if block.round == _round(test, pair))
    columns = [test.signal(pair, f"{start}.{client}") for client in range(clients)]
    means = [column.mean(axis=1) for column in columns if column is not None and column.shape[1]]
    return np.stack(means, axis=1) if means else None


def _round(test: SetEvidence, pair: int) -> int:
    return int(test.models.round[pair])


def _utility(test: SetEvidence, statistic: str) -> FloatArray:
    """(R,) the utility of the last observed aggregate on the test set; NaN in runs that have diverged."""
    pair = len(test.models.round) - 1
    loss = test.loss(pair)
    values = -loss if statistic == "loss" else np.where(np.isnan(loss), np.nan, test.correct(pair))
    return np.asarray(values.mean(axis=1))


def _means(metric: str, labels: Labels, values: FloatArray, audit: AuditSet) -> Iterator[Reading]:
    """The mean over runs of each client, and the mean over clients; twins are averaged first, and count once."""
    values = average_twins(np.where(np.isfinite(values), values, np.nan), audit)
    known = ~np.isnan(values)
    for client in range(values.shape[1]):
        low, high = student_mean(values[:, client])
        n = int(known[:, client].sum())
        value = float(values[known[:, client], client].mean()) if n else math.nan
        subject = f"client {client}"
        yield Reading(metric=metric, value=value, low=low, high=high, n=n, subject=subject, labels=labels)
    listed = known.any(axis=0)
    runs = values[known.any(axis=1)][:, listed]
    if not listed.any():
        return
    without = np.array([mean(np.delete(runs, run, axis=0), axis=0).mean() for run in range(len(runs))])
    value = float(mean(runs, axis=0).mean())
    low, high = jackknife(value, without) if len(runs) > 1 else (math.nan, math.nan)
    yield Reading(metric=metric, value=value, low=low, high=high, n=int(listed.sum()), labels=labels)
