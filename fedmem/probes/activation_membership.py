"""Active membership by an activation: a unit fires for one example alone, and the update says whether it did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measurement import Reading
from fedmem.contracts.probe import BuiltNetwork, Context
from fedmem.contracts.replay import Replay
from fedmem.errors import Problem
from fedmem.probes._active import ActiveMembership, Question, reading
from fedmem.probes._cases import schedule_of
from fedmem.probes._first_layer import first_layer, layer_problems
from fedmem.probes._without_data import ROUNDING, train_without_data

RIDGE = 0.1
"""The addition to the covariance of the population, as a share of its mean variance."""


@dataclass(frozen=True, kw_only=True)
class ActivationMembership(ActiveMembership):
    """A server that sends a unit which fires for one example alone, and checks whether the client moved it.

    For each audit example j of an attacked client, in or out, the round of the client is replayed from a changed model.
    The federation trains as it does without the probe. One unit computes `relu(w (a - m) - margin)` with
    `w = C^-1 (a_j - m) / d`, where `d = (a_j - m) C^-1 (a_j - m)`. Here a_j is what arrives at the layer for example j,
    and m and C are mean and covariance of the population. The example has the projection 1. Other rows have about the
    standard deviation `1 / sqrt(d)`, so that with `margin` = 0.9 hardly any of them fires. All other units are silent.
    A unit that never fires has a gradient of exactly 0. So it moves as it would without data, by weight decay,
    momentum, a proximal term and the corrections of `scaffold` and `feddyn`. The server computes this move and
    compares, up to a factor by which a defence may scale updates. `activation` says whether the unit moved otherwise.

    The mean of `activation` over in examples is the true positive rate of the attack. Over out examples (`coin` =
    `out`) it is the false positive rate, and in minus out is the advantage. `place` = `others` asks another client of
    the cohort that does not hold j. `active_auc` has a p from coins that are dealt again. Noise in messages moves every
    unit, so the attack always answers yes and its advantage is 0.

    What the server is granted: the example, the architecture, the client algorithm with its settings and payload, and a
    population like the clients' rows. One round asks about one example. The label of the example is not used.

    Fields

    - `margin`: threshold of the unit, as a share of the way from the mean to the example.
    - `max_examples`: examples of each client and round, at most, drawn alike whether they are in or out.
    - `others`: whether another client is asked as well.
    - `rounds`: which observed rounds to attack; if left out, the first after round 0 and the last.
    - `victims`: clients attacked in each round and run.
    - `runs`: how many runs are attacked, from run 0 on.
    - `every`: attack only rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: `local` alone.

    Guarantees: deterministic; nothing is changed; the readings of a run do not depend on other runs. An answer that is
    not finite gives NaN, which does not count.

    Refused where the model does not begin with a linear layer, a ReLU and another linear layer, or with fewer than two
    rows of population. Also if the client algorithm is no `ScheduledClient`.

    >>> ActivationMembership(others=False, max_examples=3).replays_per_client(30)
    3

    Reference: Pichler, Romanelli, Vega and Piantanida (2022), Perfectly Accurate Membership Inference by a Dishonest
    Central Server in Federated Learning.
    """

    reads_gradients: ClassVar[bool] = True

    margin: Annotated[float, Gt(0), Lt(1)] = 0.9

    def network_problems(self, built: BuiltNetwork) -> list[Problem]:
        """Whether there is no such first layer, and fewer than two rows of population."""
        problems = layer_problems(built, "activation_membership")
        if built.population < 2:
            message = (
                "activation_membership needs the mean and covariance of public data, but the population has "
                f"{built.population} rows. Set population: 200, or leave the probe out"
            )
            problems.append(Problem(path="", message=message))
        return problems

    def _answers(self, questions: Sequence[Question], context: Context) -> list[tuple[Transition, Reading]]:
        federation = context.federation
        layer = first_layer(federation, federation.personal_names(context.client), "activation_membership")
        arrived = layer.at_layer(federation.population.inputs)
        mean, inverse = arrived.mean(0), inverse_covariance(arrived)
        signs = np.where(np.arange(layer.outputs) % 2, -1.0, 1.0)[:, None]
        starts = []
        for question in questions:
            example = layer.at_layer(federation.audit.examples.inputs[[question.subject]])[0]
            weight, bias = unit_for(example, mean, inverse, self.margin)
            starts.append(layer.with_units(question.sender.before, weight[None], np.array([bias]), signs))
        asked = [(question.sender, Replay(start=start)) for question, start in zip(questions, starts, strict=True)]
        readings = []
        for question, start, outcome in zip(questions, starts, context.replays(asked), strict=True):
            steps = len(schedule_of(question.sender.round, question.sender.num_examples, context).learning_rates)
            drift = train_without_data(question.sender, start, steps, context)
            before, after, alone = (layer.parts(model)[0] for model in (start, outcome.sent, drift))
            value = _has_moved(after, before, alone)
            readings.append((question.sender, reading(question, "activation", value, context)))
        return readings


def inverse_covariance(rows: FloatArray) -> FloatArray:
    """(d, d) the inverse of the covariance of rows (P, d) with a ridge, so that it exists."""
    covariance = np.cov(rows.T).reshape(rows.shape[1], rows.shape[1])
    ridge = RIDGE * float(np.trace(covariance)) / len(covariance) or 1.0
    return np.asarray(np.linalg.inv(covariance + ridge * np.eye(len(covariance))))


def unit_for(example: FloatArray, mean: FloatArray, inverse: FloatArray, margin: float) -> tuple[FloatArray, float]:
    """Weights (d,) and bias of the unit that has the value 1 - margin at the example and -margin at the mean.

    >>> weight, bias = unit_for(np.array([3.0, 1.0]), np.array([1.0, 1.0]), np.eye(2), 0.75)
    >>> weight.tolist(), bias
    ([0.5, 0.0], -1.25)
    """
    away = example - mean
    weight = inverse @ away
    length = float(away @ weight)
    if length <= 0:  # the example is the mean: no unit fires for it alone
        return np.zeros(len(example)), -1.0
    return weight / length, -margin - float(mean @ weight) / length


def _has_moved(after: FloatArray, before: FloatArray, alone: FloatArray) -> float:
    """Whether a unit (d + 1,) moved otherwise than without data; NaN if it is not finite.

    `alone` is where the unit would be without data. A defence may scale the move, so its length does not count. A
    gradient is a sum of multiples of (a, 1) over rows that arrive as a, which is no multiple of that move.

    >>> before, alone = np.array([1.0, -2.0]), np.array([0.9, -2.0])
    >>> [_has_moved(np.array(after), before, alone) for after in ([1.0, -2.0], [0.95, -2.0], [0.9, -1.9])]
    [0.0, 0.0, 1.0]
    >>> _has_moved(np.array([0.9, -2.0]), before, before), _has_moved(np.array([math.nan, 1.0]), before, alone)
    (1.0, nan)
    """
    if not np.isfinite(after).all():
        return math.nan
    update, drift = after - before, alone - before
    square = float(drift @ drift)
    along = float(update @ drift) / square if square > 0 else 0.0
    return float(np.linalg.norm(update - along * drift) > ROUNDING * np.linalg.norm(before))
