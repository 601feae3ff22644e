"""Exact leave-one-out of one participation: a client's round repeated without an example, with the same draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Label, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.contracts.replay import Replay
from fedmem.probes._answers import answers
from fedmem.probes._clusters import mean_over_runs
from fedmem.probes._participations import draw_examples, trained_rows

_IS_NOT = (
    "It is the effect of one participation in one round, and not memorisation over training. Earlier participations "
    "are in both models, and later rounds may undo or repeat it."
)

MEASURES = (
    Measure(
        name="participation_loss",
        title="loss effect of one participation",
        means="Loss on an example after a client's round without it, minus that after the real round, with all other "
        "draws equal.",
        is_not=_IS_NOT,
        unit="nats",
        null=0.0,
        headline=True,
        order=7,
        terms=(
            (
                "effect of one participation",
                "what training on an example in one round changes on that example itself, all else being equal",
            ),
        ),
    ),
    Measure(
        name="participation_probability",
        title="probability effect of one participation",
        means="Probability of the label of an example after a client's real round, minus that after the round without "
        "it. For a text it is the geometric mean over tokens.",
        is_not=_IS_NOT,
        unit="share",
        range=(-1.0, 1.0),
        null=0.0,
        order=7,
    ),
    Measure(
        name="participation_accuracy",
        title="accuracy effect of one participation",
        means="Whether an example is right after a client's real round, minus whether it is after the round without "
        "it. For a text it is the share of its tokens.",
        is_not=_IS_NOT,
        unit="share",
        range=(-1.0, 1.0),
        null=0.0,
        order=7,
    ),
)

AT_ONCE = 32
"""Examples whose models are evaluated at the same time, at most."""

BOUNDS = {measure.name: measure.range for measure in MEASURES}

_INSTEAD = Label("instead", "text", "what is trained on in the place of the example: nothing, or its replacement row")


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Exact effect of an example on its own loss, probability and correctness in one round of its client.

    For each audit example j that a client trained on in the round, the client's local training is repeated without j
    (`Context.replays`). Weights, server payload, client state, batches, and the draws of dropout, defences and noise
    are those of the real round. With l the loss on j itself, at level

    - `local`: `participation_loss` = l(model without j) − l(real model), of the models that the client keeps;
    - `global`: the same of the aggregate, in which the client's message alone is replaced. It is recomputed by the rule
      of the strategy. The client keeps its weight, since the number of its rows stays.

    Positive: the participation lowered the loss on its own example. `participation_probability` and
    `participation_accuracy` are real minus without, so that positive has the same meaning.

    An example that is left out keeps its places in the batches, with a gradient of zero. So the other rows move the
    model as much as before. To first order in the learning rate η, each step with j in a batch of n adds η |∇l|² / n to
    `participation_loss`. This is the self-influence of TracIn. The readings are computed and not estimated, so one run
    gives the effect on an example in that run.

    An example has no reading where its client did not train on it. Then it is out, or outside its window, or in no
    batch, or dropped as a duplicate, or its client is not in the round. All copies of an example that the client trains
    on are left out together. A base row with equal content stays, since it is another record.

    `summarise` has means by kind for each round and level, and over all observed rounds as the summary. Each
    participation counts once. Intervals (95 %) are Student's over runs, NaN with a single run.

    Fields

    - `instead`: `removal` leaves the example out. `replacement` trains on a replacement row in its places, as runs do
      in which it is out under `exclusion: replace`. The row is that of another run. All copies are replaced by the row
      of the first one. An example that is never replaced has no reading.
    - `max_examples`: examples of each client and round, at most, drawn from a named stream. Null takes all.
    - `rounds`: which observed rounds to look at; if left out, all after round 0.
    - `every`: look only at rounds that this divides, and the last; if left out, all observed ones.
    - `levels`: where to look. `global` needs a strategy with a rule that carries no state.

    Guarantees: exact, given the draws; deterministic; nothing is changed; the readings of a run do not depend on other
    runs. Cost: one local training for each example.

    >>> LeaveOneOut(max_examples=3).replays_per_client(10)
    3

    References: Koh and Liang (2017), on leave-one-out and influence. Pruthi, Liu, Kale and Sundararajan (2020), on
    TracIn.
    """

    measures: ClassVar[tuple[Measure, ...]] = MEASURES
    row_labels: ClassVar[tuple[Label, ...]] = (_INSTEAD,)

    instead: Literal["removal", "replacement"] = "removal"
    max_examples: Annotated[int, Gt(0)] | None = None
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local", "global")

    @property
    def recomputes_aggregates(self) -> bool:
        """Whether it looks at the aggregate."""
        return "global" in self.levels

    def replays_per_client(self, examples: int) -> int:
        """One for each example, as far as `max_examples` goes."""
        return examples if self.max_examples is None else min(examples, self.max_examples)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """Three readings of each example of each client of the round."""
        first = transitions[0]
        if first.round == 0 or first.level == "sum" or (self.rounds and first.round not in self.rounds):
            return []
        cases = [case for transition in transitions for case in self._cases(transition, context)]
        outcomes = context.replays([(case.sender, case.change) for case in cases])
        readings: list[tuple[Transition, Reading]] = []
        for transition, group in _portions(cases):
            changed = [next(outcomes) for _ in group]
            if transition.level == "local":
                with_it, without = transition.kept, [outcome.kept for outcome in changed]
            else:
                changes = [{case.sender.client: outcome} for case, outcome in zip(group, changed, strict=True)]
                with_it, *without = context.aggregates(transition, [{}, *changes])
            effects = _effects(with_it, without, [case.subject for case in group], context)
            readings += [
                (transition, reading)
                for case, values in zip(group, effects.T.tolist(), strict=True)
                for reading in self._readings(case, values, context.federation)
            ]
        return readings

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means by kind of each round and level, then over all rounds, as the summary."""
        groups: dict[tuple[int | None, Level, Labels, str, str], list[Measurement]] = {}
        for whole in (False, True):
            for measurement in measurements:
                labels = measurement.reading.labels
                place = None if whole else measurement.round_number
                about = labels.without("owner", "kind")
                key = (place, measurement.level, about, labels.text("kind"), measurement.reading.metric)
                groups.setdefault(key, []).append(measurement)
        return [
            replace(
                rows[0],
                run=None,
                client=NO_CLIENT,
                round=place,
                reading=replace(mean_over_runs(rows, metric, kind, BOUNDS[metric]), labels=about),
            )
            for (place, _, about, kind, metric), rows in groups.items()
        ]

    def _cases(self, transition: Transition, context: Context) -> Iterator[_Case]:
        """The examples whose effect on this model is measured, client after client."""
        senders = [transition] if transition.level == "local" else context.senders(transition)
        for sender in senders:
            # an aggregate that its owner completes is read for this owner alone
            if transition.level == "local" or transition.client in (NO_CLIENT, sender.client):
                for subject, change in self._changes(sender, context):
                    yield _Case(transition, sender, subject, change)

    def _changes(self, sender: Transition, context: Context) -> Iterator[tuple[int, Replay]]:
        """The examples that a client trained on in this round, as far as they are looked at, each with its change."""
        federation, run, client = context.federation, sender.run, sender.client
        rows_of = trained_rows(federation, run, client, sender.round)
        subjects = draw_examples(context, sender, rows_of, self.max_examples, "leave one out")
        used = context.used_rows(run, client, sender.round)
        client_rows = context.rows(run, client, sender.round) if self.instead == "replacement" else used
        for subject in subjects:
            rows = rows_of[subject]
            if self.instead == "removal":
                yield subject, Replay(without=tuple(rows))
                continue
            other = _replacement(federation, run, client, subject, client_rows)
            if other is not None:
                yield subject, Replay(extra=dict.fromkeys(rows, other))

    def _readings(self, case: _Case, values: Sequence[float], federation: Federation) -> Iterator[Reading]:
        labels = Labels.of(
            owner=case.sender.client,
            kind=str(federation.audit.kind[case.subject]),
            instead=None if self.instead == "removal" else self.instead,
        )
        for measure, value in zip(MEASURES, values, strict=True):
            known = int(not math.isnan(value))
            yield Reading(metric=measure.name, value=value, n=known, subject=str(case.subject), labels=labels)


@dataclass(frozen=True)
class _Case:
    """One example whose effect on a model is measured: the model, the client that trained on it, and the change."""

    transition: Transition
    sender: Transition
    subject: int
    change: Replay


def _portions(cases: Sequence[_Case]) -> Iterator[tuple[Transition, Sequence[_Case]]]:
    """The cases of one model after the other, `AT_ONCE` at most, each in their order."""
    for _, group in groupby(cases, key=lambda case: id(case.transition)):
        whole = list(group)
        for start in range(0, len(whole), AT_ONCE):
            yield whole[start].transition, whole[start : start + AT_ONCE]


def _replacement(federation: Federation, run: int, client: int, subject: int, client_rows: IntArray) -> int | None:
    """The row that replaces an example at a client in the next run that has it out; None where there is none.

    Rows that the client trains on in this run anyway are passed over.
    """
    audit = federation.audit
    copies = np.flatnonzero((audit.owners == client) & (audit.subject == subject))
    own = set(federation.trained_rows[copies].tolist())
    for other in [*range(run + 1, audit.runs), *range(run)]:
        row = int(federation.replacement[other, copies[0]])
        if row >= 0 and row not in own and not np.isin(row, client_rows):
            return row
    return None


def _effects(with_it: Params, without: Sequence[Params], subjects: Sequence[int], context: Context) -> FloatArray:
    """(3, n) the effects on the loss, the probability and the correctness of n examples, each with its own model."""
    examples = context.federation.audit.examples
    inputs, targets = examples.inputs[list(subjects)], examples.targets[list(subjects)]
    right, loss = answers([with_it, *without], inputs, targets, context)
    own = np.arange(1, 1 + len(subjects)), np.arange(len(subjects))
    probability = np.exp(-loss)
    return np.stack([loss[own] - loss[0], probability[0] - probability[own], right[0] - right[own]])
