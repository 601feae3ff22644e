"""Membership of single examples by the answers of clients to changed models: examples, scores, and their AUC."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import NO_CLIENT, Labels, Level, Measurement, Reading
from fedmem.contracts.probe import Context
from fedmem.estimation.randomisation import areas, two_sided
from fedmem.estimation.roc import auc
from fedmem.estimation.statistics import wilson
from fedmem.probes._cases import choose_clients
from fedmem.probes._clusters import interval_around
from fedmem.probes._leak_measures import ACTIVE
from fedmem.probes._leakage_summary import summed_up
from fedmem.probes._measures import OUT
from fedmem.seeding import stream

DEALS = 999
"""Other deals of the coins that a p is from."""


@dataclass(frozen=True)
class Question:
    """One example whose membership is asked of one client: its owner, or another that does not hold it."""

    sender: Transition
    owner: int
    subject: int

    @property
    def place(self) -> str:
        """Whose answer it is."""
        return "owner" if self.sender.client == self.owner else "others"


@dataclass(frozen=True, kw_only=True)
class ActiveMembership(ABC):
    """Shared by probes that ask clients about single examples; see `gradient_ascent` and `activation_membership`."""

    measures: ClassVar[tuple[Measure, ...]] = ACTIVE
    compares_held_out: ClassVar[bool] = True
    needs_independent_runs: ClassVar[bool] = True

    max_examples: Annotated[int, Gt(0)] = 12
    others: bool = True
    rounds: tuple[Annotated[int, Gt(0)], ...] = ()
    victims: Annotated[int, Gt(0)] = 2
    runs: Annotated[int, Gt(0)] = 8
    every: Annotated[int, Gt(0)] | None = None
    levels: tuple[Level, ...] = ("local",)

    def replays_per_client(self, examples: int) -> int:
        """One for each example, and another where another client is asked as well."""
        return self.max_examples * (1 + self.others)

    def observe(self, transitions: Sequence[Transition], context: Context) -> Sequence[tuple[Transition, Reading]]:
        """One reading or more for each example and each client that is asked about it."""
        first = transitions[0]
        if first.level != "local" or first.round not in self._attacked_rounds(context):
            return []
        questions = list(self._questions(transitions, context))
        return self._answers(questions, context) if questions else []

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        """Means and differences by kind, and the AUC with its p, for each round and in the summary."""
        return [*summed_up(measurements, self.measures), *areas_of(measurements, seed)]

    @abstractmethod
    def _answers(self, questions: Sequence[Question], context: Context) -> list[tuple[Transition, Reading]]:
        """The readings of all questions of a round."""

    def _attacked_rounds(self, context: Context) -> tuple[int, ...]:
        """The rounds to attack: by default the first after round 0 and the last."""
        last = context.observed_rounds[-1]
        due = [r for r in context.observed_rounds if r > 0 and (not self.every or r % self.every == 0 or r == last)]
        return self.rounds or (*due[:1], *due[1:][-1:])

    def _questions(self, transitions: Sequence[Transition], context: Context) -> Iterator[Question]:
        """The examples of the attacked clients, in and out alike, drawn without a look at the coins."""
        audit = context.federation.audit
        for run in sorted({transition.run for transition in transitions if transition.run < self.runs}):
            senders = {transition.client: transition for transition in transitions if transition.run == run}
            cohort = sorted(senders)
            round_number = transitions[0].round
            for client in sorted(choose_clients(run, round_number, cohort, self.victims, context)):
                subjects = np.flatnonzero((audit.owner == client) & audit.is_active(round_number))
                rng = context.stream("active membership", run=run, round_number=round_number, client=client)
                for subject in sorted(rng.permutation(subjects)[: self.max_examples].tolist()):
                    yield Question(senders[client], client, subject)
                    later = [other for other in cohort if other > client] + [
                        other for other in cohort if other < client
                    ]
                    strangers = [other for other in later if not audit.holds([other])[0, subject]]
                    if self.others and strangers:
                        yield Question(senders[strangers[0]], client, subject)


def reading(question: Question, metric: str, value: float, context: Context, statistic: str | None = None) -> Reading:
    """A reading about the example of a question, labelled with its coin."""
    audit = context.federation.audit
    is_in = bool(audit.is_in[question.sender.run, question.subject])
    about = Labels.of(
        owner=question.owner,
        kind=str(audit.kind[question.subject]),
        coin=None if is_in else OUT,
        place=question.place,
        statistic=statistic,
    )
    return Reading(
        metric=metric, value=value, n=int(not math.isnan(value)), subject=str(question.subject), labels=about
    )


def areas_of(measurements: Sequence[Measurement], seed: int) -> list[Measurement]:
    """The AUC of every score by kind, for each round and over all, and its p.

    The scores of an example in one run are averaged over rounds. The interval is Student's, clustered by owners and
    runs. Where all pairs are won or lost, it is Wilson's with as many trials as there are clusters. For the p the coins
    of each example are dealt again among the runs in which it has a score.
    """
    groups: dict[tuple[str, int | None, Level, Labels, str], list[Measurement]] = {}
    for each in measurements:
        labels = each.reading.labels
        about = labels.without("owner", "kind", "coin")
        if "statistic" not in about:
            about = about.plus(statistic=each.reading.metric)
        for place in (each.round, None):
            groups.setdefault((each.source, place, each.level, about, labels.text("kind")), []).append(each)
    rows = []
    for (source, place, level, about, kind), members in groups.items():
        for one in _area(members, kind, about, stream(seed, "active membership p")):
            rows.append(Measurement(run=None, round=place, level=level, client=NO_CLIENT, source=source, reading=one))
    return rows


def _area(members: Sequence[Measurement], kind: str, about: Labels, rng: np.random.Generator) -> list[Reading]:
    """The AUC and its p of one kind, from readings with coins."""
    runs = {run: i for i, run in enumerate(sorted({each.run_number for each in members}))}
    subjects = {name: i for i, name in enumerate(sorted({each.reading.subject for each in members}, key=int))}
    total, count = (np.zeros((len(runs), len(subjects))) for _ in range(2))
    is_in, owners = np.zeros(total.shape, dtype=bool), np.zeros(len(subjects), dtype=np.int64)
    for each in members:
        cell = runs[each.run_number], subjects[each.reading.subject]
        if not math.isnan(each.reading.value):
            total[cell] += each.reading.value
            count[cell] += 1
        is_in[cell] = each.reading.labels.get("coin") != OUT
        owners[cell[1]] = each.reading.labels.integer("owner")
    scores = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    value, low, high = area_with_interval(scores, is_in, owners)
    n = int((count > 0).sum())
    shown = Reading(metric="active_auc", value=value, low=low, high=high, n=n, subject=kind, labels=about)
    p = p_of_area(scores, is_in, rng)
    return [shown, Reading(metric="active_auc.p", value=p, n=n, subject=kind, labels=about)]


def area_with_interval(scores: FloatArray, is_in: BoolArray, owners: IntArray) -> tuple[float, float, float]:
    """The AUC of scores (R, m), NaN left out, with an interval that clusters by run and by owner (m,).

    >>> scores, is_in = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[True, False], [False, True]])
    >>> value, low, high = area_with_interval(scores, is_in, np.array([0, 1]))
    >>> value, round(low, 2), high
    (1.0, 0.34, 1.0)
    """
    rate = auc(scores, is_in)
    if math.isnan(rate.value):
        return math.nan, math.nan, math.nan
    is_counted = rate.weights != 0
    # the shares of outs are those of the members below them
    won = np.where(is_in, rate.shares, 1.0 - rate.shares)
    residuals = np.abs(rate.weights) * (won - rate.value)
    runs, columns = np.nonzero(is_counted)
    of_owners = owners[columns].tolist()
    low, high = interval_around(rate.value, residuals[is_counted], [of_owners, runs.tolist()], 0.95)
    if math.isnan(low) and rate.value in (0.0, 1.0):
        trials = max(1, min(len(set(of_owners)), len(set(runs.tolist()))))
        low, high = (float(end) for end in wilson(rate.value * trials, trials))
    return rate.value, float(np.clip(low, 0.0, 1.0)), float(np.clip(high, 0.0, 1.0))


def p_of_area(scores: FloatArray, is_in: BoolArray, rng: np.random.Generator, deals: int = DEALS) -> float:
    """Two-sided p of the AUC of scores (R, m), from coins that are dealt again within each example.

    Each example keeps its number of runs in, among the runs in which it has a score. NaN where the AUC is.
    """
    is_scored = ~np.isnan(scores)
    coins = np.repeat((is_in & is_scored)[None], deals + 1, axis=0).astype(np.float64)
    for column in range(scores.shape[1]):
        runs = np.flatnonzero(is_scored[:, column])
        coins[1:, runs, column] = rng.permuted(coins[1:, runs, column], axis=1)
    values = areas(scores, coins)
    return math.nan if math.isnan(values[0]) else two_sided(values)
