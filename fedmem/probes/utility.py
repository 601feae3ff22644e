"""How well the models do their task, and how much better on what they were trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Gt
from numpy.typing import NDArray

from fedmem.components import Context
from fedmem.probes._clusters import mean_interval
from fedmem.types import FINAL, FloatArray, IntArray, Level, Measurement, Params, Reading, Transition

LOGITS = 1 << 22
"""Logits computed at once, which bounds the memory."""


@dataclass(frozen=True, kw_only=True)
class Utility:
    """Accuracy on held-out and on training rows, and the gap between them, of the models of a round.

    - `test_accuracy`: share of the test set that a model gets right, 0..1, higher is better;
    - `train_accuracy`: the same of its own training rows, audit examples and fill-ins included, each as often as it was
      trained on: of the client at level `local`, of all clients in the run together at level `global`, of the clients
      listed at level `sum`;
    - `generalisation_gap`: train minus test, model by model, -1..1, higher means more over-fitted. At level `local` it
      also holds the label skew of the client, since the test set is everybody's.

    An example is right when the logit of its label is strictly larger than every other, so a constant model is never
    right. One reading for each metric, over all models of the level and round: the mean over n models, with Student's t
    interval (95 %) over runs; NaN with a single run. A model without training rows counts for `test_accuracy` alone;
    with no test set, or no model to average, the value is NaN. `summarise` repeats the last observed round as FINAL.

    Fields

    - `every`: measure only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to measure.

    Guarantees: deterministic; reads `kept`, what a model's holder uses; nothing is changed.

    >>> Utility().levels
    ('local', 'global')

    Reference: Usynin, Knolle and Kaissis (2024), section 3.2, on over-fitting beside memorisation.
    """

    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(
        self, transitions: Sequence[Transition], context: Context
    ) -> Sequence[tuple[Transition | None, Reading]]:
        """The three readings, about all transitions together."""
        test = _test(transitions, context)
        train = _train(transitions, context)
        runs = np.array([transition.run for transition in transitions])
        values = {"test_accuracy": test, "train_accuracy": train, "generalisation_gap": train - test}
        return [(None, _mean(metric, value, runs)) for metric, value in values.items()]

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """The last observed round of each level once more, as FINAL."""
        last: dict[Level, int] = {}
        for one in measurements:
            last[one.level] = max(one.round, last.get(one.level, one.round))
        return [replace(one, round=FINAL) for one in measurements if one.round == last[one.level]]


def _test(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(T,) accuracy on the test set, NaN without one."""
    test = context.federation.test
    right = _right([transition.kept for transition in transitions], test.inputs, test.targets, context)
    return right.mean(axis=1) if len(test) else np.full(len(transitions), np.nan)


def _train(transitions: Sequence[Transition], context: Context) -> FloatArray:
    """(T,) accuracy on the rows trained on, NaN without any.

    Models of the same clients share most rows, so they are evaluated together on the union of their rows.
    """
    store = context.federation.store
    groups: dict[tuple[int, ...], list[int]] = {}
    for t, transition in enumerate(transitions):
        groups.setdefault(_clients(transition, context), []).append(t)
    accuracy = np.full(len(transitions), np.nan)
    for clients, members in groups.items():
        round = transitions[members[0]].round
        rows = {run: _rows(run, clients, round, context) for run in sorted({transitions[t].run for t in members})}
        union = np.unique(np.concatenate(list(rows.values())))
        models = [transitions[t].kept for t in members]
        right = _right(models, store.inputs[union], store.targets[union], context)
        for t, answers in zip(members, right, strict=True):
            own = rows[transitions[t].run]
            if len(own):
                accuracy[t] = answers[np.searchsorted(union, own)].mean()
    return accuracy


def _clients(transition: Transition, context: Context) -> tuple[int, ...]:
    """Whose rows a model was trained on."""
    if transition.level == "local":
        return (transition.client,)
    if transition.level == "sum":
        return transition.clients
    return tuple(range(context.federation.num_clients))


def _rows(run: int, clients: Sequence[int], round: int, context: Context) -> IntArray:
    """All their rows of the store in this round, with repetitions."""
    return np.concatenate([np.empty(0, dtype=np.int64), *(context.rows(run, client, round) for client in clients)])


def _right(models: Sequence[Params], inputs: NDArray[np.float32], targets: IntArray, context: Context) -> FloatArray:
    """(T, n) 1 where the logit of the label beats every other strictly, else 0; chunked over rows."""
    chunk = max(1, LOGITS // (len(models) * context.federation.num_classes))
    right = np.zeros((len(models), len(inputs)))
    for start in range(0, len(inputs), chunk):
        part = slice(start, start + chunk)
        logits = context.logits(models, inputs[part])
        own = np.take_along_axis(logits, targets[None, part, None], axis=2)
        # It beats all others but itself; nothing beats NaN, and NaN beats nothing.
        right[:, part] = (own > logits).sum(axis=2) == logits.shape[2] - 1
    return right


def _mean(metric: str, values: FloatArray, runs: IntArray) -> Reading:
    """Mean and interval over the models that have a value; runs are the clusters."""
    known = ~np.isnan(values)
    if not known.any():
        return Reading(metric=metric, value=math.nan, n=0)
    least = -1.0 if metric == "generalisation_gap" else 0.0
    ends = mean_interval(values[known], runs[known].tolist())
    low, high = (float(np.clip(end, least, 1.0)) for end in ends)
    return Reading(metric=metric, value=float(values[known].mean()), low=low, high=high, n=int(known.sum()))
