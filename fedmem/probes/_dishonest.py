"""A server that sends a client another model, in replays of its round, and reads rows from the answer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Lt

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Reconstruction
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Level, Measurement, Reading
from fedmem.contracts.probe import BuiltNetwork, Context
from fedmem.contracts.replay import Replay
from fedmem.errors import Problem
from fedmem.privacy.secure_aggregation import sum_of
from fedmem.probes._cases import Case, Scope, schedule_of, senders_of
from fedmem.probes._first_layer import FirstLayer, first_layer, layer_problems
from fedmem.probes._leak_measures import ATTACK_LABELS, ATTACKED, DISHONEST
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT, of_victim
from fedmem.probes._victims import score
from fedmem.probes._without_data import scale_of, train_without_data

VIEW: Mapping[Level, str] = {"local": "message", "sum": "sum"}
"""The view of each level that is attacked."""

NOTHING = 1e-7
"""A gradient of a bias below this share of the largest one is rounding: no row moved its unit."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The first layer that is sent, and how its gradient is read.

    Attributes:
        weight: (k, d) of the first units.
        bias: (k,) of the same units.
        following: (outputs, k) weights of the next layer; None for the real ones.
        adjacent: Whether gradients of adjacent units are subtracted, each unit firing where the next one does.
    """

    weight: FloatArray
    bias: FloatArray
    following: FloatArray | None
    adjacent: bool

    def cells(self, arrived: FloatArray) -> BoolArray:
        """(n, k) whether each of n rows is one of those from which a quotient is formed.

        >>> plan = Plan(weight=np.ones((2, 1)), bias=np.array([0.0, -1.0]), following=None, adjacent=True)
        >>> plan.cells(np.array([[0.5], [3.0]])).astype(int).tolist()
        [[1, 0], [0, 1]]
        """
        fires = arrived @ self.weight.T + self.bias > 0
        if self.adjacent:
            fires[:, :-1] &= ~fires[:, 1:]
        return np.asarray(fires)


def quotients(gradient: FloatArray, *, adjacent: bool) -> FloatArray:
    """(m, d) the quotients of gradients of weights and biases, of units that some row moved.

    Args:
        gradient: (k, d + 1) of the weights of each unit, and of its bias.
        adjacent: Whether the next unit is subtracted from each unit before.

    >>> quotients(np.array([[3.0, 4.0, 1.5], [2.0, 2.0, 1.0]]), adjacent=True).tolist()
    [[2.0, 4.0], [2.0, 2.0]]
    """
    largest = np.abs(gradient[:, -1]).max(initial=0.0)
    gradient = differences(gradient) if adjacent else gradient
    is_moved = np.isfinite(gradient).all(1) & (np.abs(gradient[:, -1]) > NOTHING * largest)
    return np.asarray(gradient[is_moved, :-1] / gradient[is_moved, -1:])


def differences(units: FloatArray) -> FloatArray:
    """(k, d) each unit minus the next one, and the last as it is.

    >>> differences(np.array([[5.0], [3.0], [2.0]])).ravel().tolist()
    [2.0, 1.0, 2.0]
    """
    return np.asarray(units - np.concatenate([units[1:], np.zeros((1, units.shape[1]))]))


def find_isolated(cells: BoolArray) -> BoolArray:
    """(n,) whether each row is alone in one of its cells (n, k).

    >>> find_isolated(np.array([[1, 0], [1, 1], [0, 0]], bool)).tolist()
    [False, True, False]
    """
    return np.asarray((cells & (cells.sum(0) == 1)).any(1))


@dataclass(frozen=True, kw_only=True)
class DishonestServer(ABC):
    """Shared by probes whose server sends another first layer; see `imprint` and `trap_weights`."""

    measures: ClassVar[tuple[Measure, ...]] = (*ATTACKED, *DISHONEST)
    row_labels: ClassVar[tuple[Label, ...]] = (
        *ATTACK_LABELS,
        Label("server", "text", "dishonest: it sent another model; honest: the same quotients of the real message"),
        Label("steps", "whole", "local steps after which the client answers; without it, as many as it did"),
    )
    compares_held_out: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True
    _kind: ClassVar[str] = ""

    steps: tuple[Annotated[int, Gt(0)], ...] = ()
    tolerance: Annotated[float, Gt(0), Lt(0.1)] = 1e-3
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 8
    gallery: Annotated[int, Gt(0)] = 2000
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local",)

    def replays_per_client(self, examples: int) -> int:
        """One for each number of steps."""
        return max(1, len(self.steps))

    def network_problems(self, built: BuiltNetwork) -> list[Problem]:
        """Whether there is no such first layer, and no population to set thresholds by."""
        problems = layer_problems(built, self._kind)
        if not built.population:
            message = (
                f"{self._kind} sets its thresholds by public data, but there is no population. Set population: 200"
            )
            problems.append(Problem(path="", message=f"{message}, or leave the probe out"))
        return problems

    @abstractmethod
    def _plan(self, arrived: FloatArray, layer: FirstLayer, count: int, rng: np.random.Generator) -> Plan:
        """The layer that is sent for so many rows, from what arrives there of the population."""

    @abstractmethod
    def _expected_share(self, plan: Plan, arrived: FloatArray, count: int, rng: np.random.Generator) -> float:
        """The expected share of rows that are alone in a cell, of `count` rows like those of the population."""

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Attack the messages or sums of this round, if it is one of those to attack."""
        first = transitions[0]
        if first.level not in VIEW or first.round not in self._attacked_rounds(context):
            return []
        federation = context.federation
        layer = first_layer(federation, federation.personal_names(context.client), self._kind)
        readings: list[tuple[Transition, Reading]] = []
        for steps in self.steps or (None,):
            scope = Scope(runs=self.runs, victims=self.victims, max_images=1, knows=("population",), steps=steps)
            for case in scope.cases(VIEW[first.level], transitions, context):
                if steps is None or all(
                    len(context.batches_and_payload(sender)[0]) >= steps
                    for sender in senders_of(case.transition, context)
                ):
                    readings += [(case.transition, reading) for reading in self._of(case, layer, steps, context)]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind, view, server and steps, and what victims have over controls, by round and over all."""
        return summed_up(measurements, self.measures)

    def _attacked_rounds(self, context: Context) -> tuple[int, ...]:
        """The rounds to attack: by default the first after round 0 and the last."""
        last = context.observed_rounds[-1]
        due = [r for r in context.observed_rounds if r > 0 and (not self.every or r % self.every == 0 or r == last)]
        return self.rounds or (*due[:1], *due[1:][-1:])

    def _of(self, case: Case, layer: FirstLayer, steps: int | None, context: Context) -> Iterator[Reading]:
        """All readings of one message or sum: of the dishonest server, and of the honest one for a whole round."""
        federation, place = context.federation, case.transition
        arrived = layer.at_layer(federation.population.inputs)
        rng = context.stream(self._kind, run=place.run, round_number=place.round)
        plan = self._plan(arrived, layer, len(case.rows), rng)
        senders = senders_of(place, context)
        starts = [layer.with_units(sender.before, plan.weight, plan.bias, plan.following) for sender in senders]
        asked = [(sender, Replay(start=start, steps=steps)) for sender, start in zip(senders, starts, strict=True)]
        answers = [
            replace(sender, before=start, sent=outcome.sent, kept=outcome.kept)
            for sender, start, outcome in zip(senders, starts, context.replays(asked), strict=True)
        ]
        answer = answers[0] if place.level == "local" else sum_of(answers, context.weighting)
        gradient = _gradient(answer, answers, plan, layer, steps, context)
        values = quotients(gradient, adjacent=plan.adjacent)
        about = {"server": "dishonest"} | ({} if steps is None else {"steps": steps})
        yield from self._score(case, layer, values, about, context)
        rows = layer.at_layer(federation.store.inputs[case.rows])
        labels = case.labels.plus(**about)
        count = len(case.rows)
        alone = float(find_isolated(plan.cells(rows)).mean())
        yield Reading(metric="isolated_rows", value=alone, n=count, labels=labels)
        share = self._expected_share(plan, arrived, count, rng)
        yield Reading(metric="isolated_rows_expected", value=share, n=count, labels=labels)
        if steps is None:
            honest = quotients(_gradient(place, senders, None, layer, None, context), adjacent=False)
            yield from self._score(case, layer, honest, {"server": "honest"}, context)

    def _score(
        self, case: Case, layer: FirstLayer, values: FloatArray, about: dict[str, str | int], context: Context
    ) -> Iterator[Reading]:
        """The readings of all rows, and of each victim and control, from the quotients."""
        federation = context.federation
        found = layer.inputs(values)
        shape = federation.store.inputs.shape[1:]
        images = np.clip(found, 0.0, 1.0).astype(np.float32).reshape(-1, *shape)
        if not len(images):
            images = np.full((1, *shape), 0.5, dtype=np.float32)
        labels = np.arange(len(images)) % federation.num_classes
        for victim in score(
            case, Reconstruction(inputs=images, labels=labels, distance=math.nan), context, self.gallery
        ):
            for reading in of_victim(victim):
                yield replace(reading, labels=reading.labels.plus(**about))
            exact = self._is_exact(found, federation.audit.examples.inputs[[victim.subject]])
            of_victim_labels = case.labels.plus(
                **about, coin=OUT if victim.control else None, owner=victim.owner, kind=victim.kind
            )
            yield Reading(metric="exact", value=float(exact[0]), subject=str(victim.subject), labels=of_victim_labels)
        share = float(self._is_exact(found, federation.store.inputs[case.rows]).mean())
        yield Reading(metric="exact_rows", value=share, n=len(case.rows), labels=case.labels.plus(**about))

    def _is_exact(self, found: FloatArray, inputs: FloatArray) -> BoolArray:
        """(n,) whether some quotient (m, d) equals each input up to the tolerance, in every entry."""
        flat = inputs.reshape(len(inputs), -1).astype(np.float64)
        if not len(found):
            return np.zeros(len(flat), dtype=bool)
        return np.array([np.abs(found - row).max(1).min() <= self.tolerance for row in flat])


def _gradient(
    answer: Transition,
    senders: Sequence[Transition],
    plan: Plan | None,
    layer: FirstLayer,
    steps: int | None,
    context: Context,
) -> FloatArray:
    """(k, d + 1) a multiple of the gradient of the units of a plan, or of all units of the real layer.

    It is the model that the clients would have sent without data, minus the one that they sent. The former is that of
    `train_without_data`. Of a message that a defence scaled, `scale_of` is the scale. Entries that stay are zero.
    """
    trained = []
    for sender in senders:
        rates = schedule_of(answer.round, sender.num_examples, context).learning_rates[:steps]
        model = train_without_data(sender, sender.before, len(rates), context)
        trained.append(replace(sender, sent=model, kept=model))
    drift = trained[0] if answer.level == "local" else sum_of(trained, context.weighting)
    before, sent, alone = (layer.parts(model) for model in (answer.before, answer.sent, drift.sent))
    k = layer.units if plan is None else len(plan.weight)
    updates, drifts = (sent - before)[:k], (alone - before)[:k]
    cells = (differences(updates), differences(drifts)) if plan and plan.adjacent else (updates, drifts)
    scale = scale_of(*cells, np.linalg.norm(before[:k], axis=1))
    return np.where(updates != 0, scale * drifts - updates, 0.0)
