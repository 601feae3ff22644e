"""The work of an unlearner, counted before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.events import count
from fedmem.contracts.unlearner import unlearner_declaration
from fedmem.federation.phases import forgotten_rows
from fedmem.federation.roster import Cohorts

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class UnlearningWork:
    """The work of an unlearner in all runs.

    Attributes:
        clients: Pairs of a run and a client with something to forget.
        steps: Gradients on all rows of a client, at most.
        trainings: Local trainings that are done again.
        evidence: Rows of evidence of the models before.
    """

    clients: int = 0
    steps: int = 0
    trainings: int = 0
    evidence: int = 0

    def text(self, trainings: int) -> str:
        """The work in words, beside so many local trainings of the phase; empty where there is none.

        >>> UnlearningWork(clients=2, steps=100, evidence=9).text(10)
        '2 clients of all runs with something to forget, at most 100 gradients on their rows'
        """
        if not self.clients:
            return ""
        parts = [f"{count(self.clients, 'client')} of all runs with something to forget"]
        parts += [f"at most {self.steps:,} gradients on their rows"] if self.steps else []
        if self.trainings:
            share = 100 * self.trainings / max(1, trainings)
            parts += [f"{count(self.trainings, 'local training')} again, {share:.0f} % of those of the phase"]
        return ", ".join(parts)


def count_unlearning(scenario: Scenario, federation: Federation, times: float) -> UnlearningWork:
    """The work of the unlearner of a scenario, which has `times` as many runs as the federation; none without one."""
    previous = scenario.previous
    is_stored = "global" in scenario.observe.levels
    if scenario.after is not None and scenario.after.relearn:
        return UnlearningWork(evidence=scenario.runs * len(federation.audit) * is_stored)
    if scenario.unlearner is None or previous is None:
        return UnlearningWork()
    runs = federation.audit.runs
    declared = unlearner_declaration(scenario.unlearner)
    clients = sum(len(forgotten_rows(scenario, federation, run)) for run in range(runs))
    trainings = 0.0
    if declared.trained_rounds is not None:
        cohorts = Cohorts.draw(previous.model_copy(update={"runs": runs}), federation)
        due = declared.trained_rounds(previous.rounds)
        drawn = [cohorts.count(number) for number in due if number <= cohorts.rounds]
        trainings = sum(drawn) * len(due) / max(1, len(drawn))
    if declared.trains_shards:
        trainings += _trainings_of_shards(scenario, previous, federation)
    test = len(federation.test) * scenario.observe.test.is_read_at("global")
    return UnlearningWork(
        clients=round(clients * times),
        steps=round(clients * times) * declared.steps,
        trainings=round(trainings * times),
        evidence=scenario.runs * (len(federation.audit) + test) * is_stored,
    )


def _trainings_of_shards(scenario: Scenario, previous: Scenario, federation: Federation) -> float:
    """The local trainings in shards of clients with something to forget, in all rounds of the phase before."""
    shards = federation.mode.client_shards or ClientShards()
    runs = federation.audit.runs
    cohorts = Cohorts.draw(previous.model_copy(update={"runs": runs}), federation)
    trainings = 0
    for run in range(runs):
        affected = {shards.of(client) for client in forgotten_rows(scenario, federation, run)}
        roster = cohorts.rosters[run // cohorts.runs_per_roster]
        for round_number in range(1, cohorts.rounds + 1) if affected else ():
            trainings += sum(shards.of(client) in affected for client in roster.cohort(round_number))
    return trainings * previous.rounds / cohorts.rounds
