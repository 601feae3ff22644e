"""How well the models do their task, and how much better on what they were trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.components import Context
from fedmem.losses import over_what_is_asked
from fedmem.probes._clusters import mean_over_runs
from fedmem.probes._pieces import pieces
from fedmem.types import EVERYWHERE, FINAL, FloatArray, IntArray, Level, Measurement, Params, Reading, Transition


@dataclass(frozen=True, kw_only=True)
class Utility:
    """Accuracy on held-out and on training rows, and the gap between them, of the models of a round.

    - `test_accuracy`: share of the test set that a model gets right, 0..1, higher is better;
    - `train_accuracy`: the same of its own training rows, audit examples and fill-ins included, each as often as it was
      trained on: of the client at level `local`, of all clients in the run together at level `global` (of its holder
      alone, where the aggregate is completed by personal layers), of the clients listed at level `sum`;
    - `generalisation_gap`: train minus test, model by model, -1..1, higher means more over-fitted. At level `local` it
      also holds the label skew of the client, since the test set is everybody's.

    An example is right when the logit of its label is strictly larger than every other, so a constant model is never
    right. One reading of each metric for each model; NaN, with n = 0, without training rows or without a test set.

    `summarise` adds one row of each metric for each level and round (run and client -1): the mean over n models, with
    Student's t interval (95 %) over runs, NaN with a single run. A model without training rows counts for
    `test_accuracy` alone; with no model to average the mean is NaN. The last observed round is repeated as FINAL.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to measure.

    Guarantees: deterministic; reads `kept`, what a model's holder uses; nothing is changed; what is read of a model
    does not depend on those beside it.

    >>> Utility().levels
    ('local', 'global')

    Reference: Usynin, Knolle and Kaissis (2024), section 3.2, on over-fitting beside memorisation.
    """

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Three readings of each model."""
        test = _test(transitions, context)
        train = _train(transitions, context)
        values = {"test_accuracy": test, "train_accuracy": train, "generalisation_gap": train - test}
        return [
            (transition, Reading(metric=metric, value=float(value[t]), n=int(not math.isnan(value[t]))))
            for t, transition in enumerate(transitions)
            for metric, value in values.items()
        ]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The means of each level and round, and those of the last round of each level once more, as FINAL."""
        means = list(_means(measurements))
        last: dict[Level, int] = {}
        for one in means:
            last[one.level] = max(one.round, last.get(one.level, one.round))
        return [*means, *(replace(one, round=FINAL) for one in means if one.round == last[one.level])]


def _means(measurements: Sequence[Measurement]) -> Iterator[Measurement]:
    """Of each metric, over all models of a level and round."""
    groups: dict[tuple[int, Level, str], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.round, one.level, one.reading.metric), []).append(one)
    for (_, _, metric), rows in groups.items():
        bounds = (-1.0 if metric == "generalisation_gap" else 0.0, 1.0)
        yield replace(rows[0], run=EVERYWHERE, client=EVERYWHERE, reading=mean_over_runs(rows, metric, bounds=bounds))


def _test(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(T,) accuracy on the test set, NaN without one."""
    test = context.federation.test
    right = _right([transition.kept for transition in transitions], test.inputs, test.targets, context)
    return right.mean(axis=1) if len(test) else np.full(len(transitions), np.nan)


def _train(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(T,) accuracy on the rows trained on, NaN without any.

    Models of the same clients share most rows, so they are evaluated together on all that any run may train on there:
    on other rows beside it, a row could get another last digit.
    """
    store = context.federation.store
    groups: dict[tuple[int, ...], list[int]] = {}
    for t, transition in enumerate(transitions):
        groups.setdefault(_clients(transition, context), []).append(t)
    accuracy = np.full(len(transitions), np.nan)
    for clients, members in groups.items():
        everything = _everything(clients, context)
        models = [transitions[t].kept for t in members]
        right = _right(models, store.inputs[everything], store.targets[everything], context)
        for t, answers in zip(members, right, strict=True):
            own = _rows(transitions[t].run, clients, transitions[t].round, context)
            if len(own):
                accuracy[t] = answers[np.searchsorted(everything, own)].mean()
    return accuracy


def _everything(clients: Sequence[int], context: Context) -> IntArray:
    """The rows of the store that these clients may train on in any run and round, sorted."""
    federation = context.federation
    slots = np.isin(federation.audit.owners, clients)
    base = [np.empty(0, dtype=np.int64), *(federation.base[client] for client in clients)]
    found = np.unique(np.concatenate([*base, federation.trained[slots], federation.fill[:, slots].ravel()]))
    return found[found >= 0]


def _clients(transition: Transition, context: Context) -> tuple[int, ...]:
    """Whose rows a model was trained on."""
    if transition.client >= 0:
        return (transition.client,)
    if transition.level == "sum":
        return transition.clients
    return tuple(range(context.federation.num_clients))


def _rows(run: int, clients: Sequence[int], round: int, context: Context) -> IntArray:
    """All their rows of the store in this round, with repetitions."""
    return np.concatenate([np.empty(0, dtype=np.int64), *(context.rows(run, client, round) for client in clients)])


def _right(models: Sequence[Params], inputs: NDArray[np.float32], targets: IntArray, context: Context) -> FloatArray:
    """(T, n) 1 where the logit of the label beats every other strictly, else 0; of texts the share of places."""
    right = np.zeros((len(models), len(inputs)))
    outputs = context.federation.num_classes * math.prod(targets.shape[1:])
    for some, part in pieces(len(models), len(inputs), outputs):
        logits = context.logits(models[some], inputs[part])
        own = np.take_along_axis(logits, targets[None, part, ..., None].clip(min=0), axis=-1)
        # It beats all others but itself; nothing beats NaN, and NaN beats nothing.
        beats = (own > logits).sum(axis=-1) == logits.shape[-1] - 1
        right[some, part] = over_what_is_asked(beats, targets[part])
    return right
