"""Accuracy and loss of the models on the test set and on the rows that they were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.probes._answers import answers
from fedmem.probes._clusters import mean_over_runs

LOSS_GAP, TEST_LOSS = "generalisation_loss_gap", "test_loss"

BOUNDS = {"generalisation_gap": (-1.0, 1.0), LOSS_GAP: (-math.inf, math.inf), TEST_LOSS: (-math.inf, math.inf)}
"""Between which values a mean lies, where that is not 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Utility:
    """Accuracy on held-out and on training rows, and the gap between them, of the models of a round.

    - `test_accuracy`: share of the test set that a model gets right, 0..1, higher is better;
    - `test_loss`: mean loss on the test set in nats, lower is better: cross-entropy, or the negative log-density of a
      model of densities;
    - `train_accuracy`: accuracy on the model's own training rows, audit examples and replacement rows included, each
      as often as it was trained on. At level `local` these are the rows of the client, and at level `sum` those of the
      listed clients. At level `global` they are the rows of all clients in the run together (of its owner alone, where
      personal layers complete the aggregate);
    - `generalisation_gap`: train minus test, model by model, -1..1, higher means more over-fitted. At level `local` it
      also holds the label skew of the client, since all clients share the test set;
    - `generalisation_loss_gap`: mean cross-entropy on the test set minus that on the training rows, in nats, model by
      model. It is the generalisation gap of the loss, and is also higher for more over-fitted models.

    An example is right when the logit of its label is strictly larger than every other, so a constant model is never
    right. There is one reading of each metric for each model. It is NaN, with n = 0, without training rows or without a
    test set, and for a model that has diverged: NaN is no answer, so it is neither right nor wrong.

    `summarise` adds one row of each metric for each level and round (no run, no client). The row is the mean over n
    models, with Student's t interval (95 %) over runs, NaN with a single run. A model without training rows counts for
    the test set alone, and a diverged model for nothing, which n shows. With no model to average the mean is NaN. The
    last observed round is repeated as the summary.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to measure.

    Guarantees: deterministic; reads `kept`, the model that its owner uses; nothing is changed; the reading of a model
    does not depend on other models.

    >>> Utility().levels
    ('local', 'global')

    Reference: Usynin, Knolle and Kaissis (2024), section 3.2, on over-fitting and memorisation.
    """

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(
            name="test_accuracy",
            title="test accuracy",
            means="Share of the test set that a model gets right.",
            unit="share",
            range=(0.0, 1.0),
            direction="higher is better",
            headline=True,
            section="utility",
            order=4,
            saturated=(-math.inf, 0.99),
        ),
        Measure(
            name="test_loss",
            title="test loss",
            means="Mean loss on the test set: cross-entropy, or the negative log-density of a model of densities.",
            unit="nats",
            section="none",
        ),
        Measure(
            name="train_accuracy",
            title="train accuracy",
            means="Share of its own training rows that a model gets right.",
            unit="share",
            range=(0.0, 1.0),
            direction="higher is better",
            section="none",
            saturated=(-math.inf, 0.99),
        ),
        Measure(
            name="generalisation_gap",
            title="generalisation gap",
            means="How much higher accuracy is on training examples than on test examples.",
            is_not="A gap is over-fitting on average, which is neither needed nor enough for memorisation. At a "
            "client it also holds the skew of its labels.",
            unit="share",
            range=(-1.0, 1.0),
            headline=True,
            section="utility",
            order=4,
            terms=(
                (
                    "generalisation gap",
                    "accuracy on training data minus accuracy on test data; in nats, loss on test minus training data",
                ),
            ),
        ),
        Measure(
            name="generalisation_loss_gap",
            title="generalisation gap",
            means="Mean cross-entropy on the test set minus that on the training rows.",
            is_not="It is over-fitting on average, which is neither needed nor enough for memorisation.",
            unit="nats",
            section="utility",
            order=4,
        ),
    )
    counts_groups: ClassVar[bool] = True
    coin_laws: ClassVar[tuple[str, ...]] = ("balanced", "rate", "owen", "beta", "one_of")
    reads_relearning: ClassVar[bool] = True
    densities: ClassVar[bool] = True

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Five readings of each model."""
        (test, test_loss), (train, train_loss) = _test(transitions, context), _train(transitions, context)
        values = {
            "test_accuracy": test,
            TEST_LOSS: test_loss,
            "train_accuracy": train,
            "generalisation_gap": train - test,
            LOSS_GAP: test_loss - train_loss,
        }
        return [
            (transition, Reading(metric=metric, value=float(value[t]), n=int(not math.isnan(value[t]))))
            for t, transition in enumerate(transitions)
            for metric, value in values.items()
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The means of each level and round, and those of the last round of each level once more, as the summary."""
        means = list(_means(measurements))
        last: dict[Level, int] = {}
        for mean in means:
            last[mean.level] = max(mean.round_number, last.get(mean.level, 0))
        return [*means, *(replace(mean, round=None) for mean in means if mean.round == last[mean.level])]


def _means(measurements: Sequence[Measurement]) -> Iterator[Measurement]:
    """Means of each metric over all models of a level and round."""
    groups: dict[tuple[int, Level, str], list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault((measurement.round_number, measurement.level, measurement.reading.metric), []).append(
            measurement
        )
    for (_, _, metric), rows in groups.items():
        bounds = BOUNDS.get(metric, (0.0, 1.0))
        yield replace(rows[0], run=None, client=NO_CLIENT, reading=mean_over_runs(rows, metric, bounds=bounds))


def _test(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(2, T) accuracy and mean loss on the test set, NaN without one."""
    test = context.federation.test
    if not len(test):
        return np.full((2, len(transitions)), np.nan)
    means: FloatArray = answers(
        [transition.kept for transition in transitions], test.inputs, test.targets, context
    ).mean(axis=2)
    return means


def _train(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(2, T) accuracy and mean loss on the rows trained on, NaN without any.

    Models of the same clients share most rows, so they are evaluated together on all rows that any run may train on
    there. The last digit of a row may depend on the other rows that are evaluated with it.
    """
    store = context.federation.store
    groups: dict[tuple[int, ...], list[int]] = {}
    for t, transition in enumerate(transitions):
        groups.setdefault(_clients(transition, context), []).append(t)
    means = np.full((2, len(transitions)), np.nan)
    for clients, members in groups.items():
        everything = _all_rows(clients, context)
        models = [transitions[t].kept for t in members]
        values = answers(models, store.inputs[everything], store.targets[everything], context)
        for place, t in enumerate(members):
            model_rows = _rows(transitions[t].run, clients, transitions[t].round, context)
            if len(model_rows):
                means[:, t] = values[:, place, np.searchsorted(everything, model_rows)].mean(axis=1)
    return means


def _all_rows(clients: Sequence[int], context: Context) -> IntArray:
    """The rows of the store that these clients may train on in any run and round, sorted."""
    federation = context.federation
    is_owned = np.isin(federation.audit.owners, clients)
    base = [np.empty(0, dtype=np.int64), *(federation.base[client] for client in clients)]
    rows = np.unique(
        np.concatenate([*base, federation.trained_rows[is_owned], federation.replacement[:, is_owned].ravel()])
    )
    return rows[rows >= 0]


def _clients(transition: Transition, context: Context) -> tuple[int, ...]:
    """The clients whose rows a model was trained on."""
    if transition.client != NO_CLIENT:
        return (transition.client,)
    if transition.level == "sum":
        return transition.clients
    return tuple(range(context.federation.num_clients))


def _rows(run: int, clients: Sequence[int], round_number: int, context: Context) -> IntArray:
    """All their rows of the store in this round, with repetitions."""
    return np.concatenate(
        [np.empty(0, dtype=np.int64), *(context.rows(run, client, round_number) for client in clients)]
    )
