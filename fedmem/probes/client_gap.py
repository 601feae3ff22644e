"""The generalisation gap of each client: how much better its own base rows are answered than the test set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.probes._answers import answers
from fedmem.probes._clusters import mean_over_runs

METRICS = ("client_accuracy_gap", "client_loss_gap")


@dataclass(frozen=True, kw_only=True)
class ClientGap:
    """Over-fitting client by client, on base rows, which are the same in all runs and hold no audit example.

    - `client_accuracy_gap`: accuracy on the client's base rows minus accuracy on the test set, −1 to 1;
    - `client_loss_gap`: mean cross-entropy on the test set minus that on the base rows, in nats.

    Both are higher where the model fits the client better than the rest. At level `local` the model is the client's
    own, for clients of the cohort. At level `global` it is the aggregate, for every client of the run, whether or not
    it participated lately. Label skew is part of both, since all clients share the test set. It is the same at both
    levels, so local minus global is the part that the client's own training adds.

    There is a reading of each model for each client (subject `client k`).

    `summarise` adds rows for each level and round (no run, no client). For each client it adds the mean over runs with
    Student's t interval (95 %) over runs, NaN with a single run. With an empty subject it adds the mean over all models
    and clients, with runs as the clusters.

    It repeats the rows of each client as the summary. They are those of the last observed round that has the client at
    all levels, so that local and global are of the same round. Where there is none, they are of the last round of each
    level. The empty subject in the summary is the plain mean over the clients that have such a round (over all clients,
    if none has). Its interval goes from the mean of their low ends to that of their high ends. That is right if a run
    moves all clients alike, and too wide otherwise; n counts their models.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to measure.

    Guarantees: deterministic; reads `kept`; nothing is changed; the reading of a model does not depend on other models.
    Where a client has no base rows, or there is no test set, it has no reading. A tie is not right. For a model that
    has diverged both values are NaN, and it does not count.

    >>> ClientGap().levels
    ('local', 'global')

    Reference: Usynin, Knolle and Kaissis (2024), section 3.2, on over-fitting and memorisation.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="client_accuracy_gap",
            title="client gap",
            means="Accuracy on the base rows of a client minus accuracy on the test set: over-fitting client by "
            "client.",
            is_not="It holds the skew of labels as well, which is there before any training.",
            unit="share",
            range=(-1.0, 1.0),
            section="utility",
            order=11,
            terms=(("client gap", "accuracy on a client's own base rows minus accuracy on test data"),),
        ),
        Measure(
            name="client_loss_gap",
            title="client gap",
            means="Mean cross-entropy on the test set minus that on the base rows of a client.",
            is_not="It holds the skew of labels as well, which is there before any training.",
            unit="nats",
            section="utility",
            order=11,
        ),
    )
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta", "one_of")

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Both gaps of every client."""
        federation = context.federation
        models = [transition.kept for transition in transitions]
        if not len(federation.test):
            return ()
        at_test = answers(models, federation.test.inputs, federation.test.targets, context).mean(2)
        readings: list[tuple[Transition, Reading]] = []
        for client in range(federation.num_clients):
            is_present = np.ones((federation.audit.runs, federation.num_clients), dtype=bool)
            if federation.audit.client_in is not None:
                is_present = federation.audit.client_in
            positions = [
                t
                for t, model in enumerate(transitions)
                if _is_read_for(model, client) and is_present[model.run, client]
            ]
            rows = federation.base[client]
            if positions and len(rows):
                client_models, store = [models[t] for t in positions], federation.store
                at_base = answers(client_models, store.inputs[rows], store.targets[rows], context).mean(2)
                gap = (at_base - at_test[:, positions]) * [[1], [-1]]
                readings += [
                    (transitions[t], Reading(metric=metric, value=value, n=int(not math.isnan(value)), subject=subject))
                    for subject in (f"client {client}",)
                    for metric, values in zip(METRICS, gap.tolist(), strict=True)
                    for t, value in zip(positions, values, strict=True)
                ]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The means of each round, then those that stand for all rounds, as the summary."""
        means = list(_over_runs(measurements))
        return [*means, *_final(means)]


def _over_runs(measurements: Sequence[Measurement]) -> Iterator[Measurement]:
    """Means over runs of every client, and over all models and clients, for each level, round and metric."""
    groups: dict[tuple[int, Level, str], dict[str, list[Measurement]]] = {}
    for measurement in measurements:
        clients = groups.setdefault((measurement.round_number, measurement.level, measurement.reading.metric), {})
        clients.setdefault(measurement.reading.subject, []).append(measurement)
    for (_, _, metric), clients in groups.items():
        # By number, since the first runs may lack the first clients.
        ordered = sorted(clients, key=lambda subject: (len(subject), subject))
        clients[""] = [measurement for subject in ordered for measurement in clients[subject]]
        for subject in (*ordered, ""):
            rows = clients[subject]
            yield replace(rows[0], run=None, client=NO_CLIENT, reading=mean_over_runs(rows, metric, subject))


def _final(means: Sequence[Measurement]) -> list[Measurement]:
    """Each client at the last round that has it at all levels, and the means over such clients."""
    rounds: dict[str, dict[Level, set[int]]] = {}
    for mean in means:
        rounds.setdefault(mean.reading.subject, {}).setdefault(mean.level, set()).add(mean.round_number)
    rounds.pop("", None)
    levels = list(dict.fromkeys(mean.level for mean in means))
    shared = {
        who: set.intersection(*(by_level.get(level, set()) for level in levels)) for who, by_level in rounds.items()
    }
    last = {
        (who, level): max(shared[who] or level_rounds)
        for who, by_level in rounds.items()
        for level, level_rounds in by_level.items()
    }
    final = [replace(mean, round=None) for mean in means if last.get((mean.reading.subject, mean.level)) == mean.round]
    comparable = {who for who, common in shared.items() if common} or set(shared)
    return [*final, *_means([mean for mean in final if mean.reading.subject in comparable])]


def _means(final: Sequence[Measurement]) -> Iterator[Measurement]:
    """Means of each metric and level over clients, without clients whose value is NaN at one of the levels."""
    for metric in dict.fromkeys(mean.reading.metric for mean in final):
        of_metric = [mean for mean in final if mean.reading.metric == metric]
        unknown = {mean.reading.subject for mean in of_metric if math.isnan(mean.reading.value)}
        for level in dict.fromkeys(mean.level for mean in of_metric):
            readings = [x.reading for x in of_metric if x.level == level and x.reading.subject not in unknown]
            ends = np.array([(x.value, x.low, x.high) for x in readings] or [(math.nan,) * 3])
            value, low, high = ends.mean(0).tolist()
            reading = Reading(metric=metric, value=value, low=low, high=high, n=sum(x.n for x in readings), subject="")
            yield replace(next(x for x in of_metric if x.level == level), reading=reading)


def _is_read_for(transition: Transition, client: int) -> bool:
    """Whether a model is read for a client: its own, that of a sum it is part of, or the aggregate."""
    if transition.client != NO_CLIENT:
        return transition.client == client
    return transition.level == "global" or client in transition.clients
