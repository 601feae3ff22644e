"""Training the cohorts of a round, and noting what came of it: one way for messages and for the rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.evidence import Lost, Participation, Transition
from fedmem.contracts.federation import Federation
from fedmem.contracts.watcher import Watcher
from fedmem.engines._failures import Failures
from fedmem.engines._statistics import require_variances
from fedmem.federation.roster import Roster
from fedmem.guards.guarding import Guard
from fedmem.training.client_work import LocalWork, TrainedWork, Work, pick
from fedmem.training.executor import Executor
from fedmem.training.finite import not_finite

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The result when all runs have ended: their last global models, participations, and dropped clients."""

    params: tuple[Params, ...]
    participation: tuple[Participation, ...]
    lost: Lost


def finish_training(params: Sequence[Params], participation: Sequence[Participation], lost: Lost) -> Finished:
    """The end of a training, its participation by run, round and client."""
    ordered = sorted(participation, key=lambda part: (part.run, part.round, part.client))
    return Finished(params=tuple(params), participation=tuple(ordered), lost=lost)


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """The common part of all runs of a training; without watchers nothing is shown."""

    scenario: Scenario
    federation: Federation
    executor: Executor
    work: LocalWork
    watchers: tuple[Watcher, ...]
    on_round: Callable[[int], None]


class CohortWork:
    """Trains the clients of a round in all runs at once; notes who took part, what they hold and what they remember.

    Attributes:
        participation: Participation of all clients that were trained or failed, in the order of the training.
        failures: The clients that are dropped in all runs.
    """

    def __init__(self, parts: TrainingParts, rosters: Mapping[int, Roster], lost: Lost) -> None:
        self.participation: list[Participation] = []
        self.failures = Failures(parts.scenario.roster != "per_run", lost)
        self._parts = parts
        self._rosters = rosters
        self._memory: dict[tuple[int, int], Params] = {}

    def is_watched(self, round_number: int) -> bool:
        """Whether anybody watches this round."""
        return any(watcher.observes_round(round_number) for watcher in self._parts.watchers)

    def show(self, round_number: int, transitions: Callable[[], list[Transition]]) -> None:
        """Build the transitions only where somebody wants them."""
        if self.is_watched(round_number):
            all_transitions = transitions()
            for watcher in self._parts.watchers:
                if watcher.observes_round(round_number):
                    watcher.see(all_transitions)

    def work_of(
        self, round_number: int, run: IntArray, client: IntArray, models: Params, model: IntArray, payload: Params
    ) -> Work:
        """The work of these clients, with the server payload and their client state."""
        require_variances(models, self._parts.federation.mode, round_number - 1)
        memory: tuple[Params, ...] = ()
        if self._memory:
            places = zip(run.tolist(), client.tolist(), strict=True)
            memory = tuple(self._memory.get(place, {}) for place in places)
        return self._parts.work.of(round_number, run, client, models, model, payload, memory)

    def train(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """Train the clients of this work: results of those that succeed, and causes of failure by position."""
        if self.is_watched(work.round):
            self._parts.work.keep(work)
        with Guard("client", self._parts.scenario.client, "its work", round=work.round):
            done, failed = self._attempt(work)
        return (None if done is None else self._note(done)), failed

    def _attempt(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        clients = work.client.tolist()
        failed = self.failures.causes_in(work.round, clients)
        going = np.array([i for i in range(len(work)) if i not in failed], dtype=np.int64)
        if not len(going):
            return None, failed
        done, causes = self._parts.executor.attempt_all(work.take(going) if failed else work)
        successes = [i for i in range(len(going)) if i not in causes]
        if done is not None and not self._parts.scenario.tolerate.not_finite:
            wrong = np.flatnonzero(~done.is_finite()).tolist()
            causes |= {successes[i]: str(not_finite(pick(done.sent, i))) for i in wrong}
        failed |= {int(going[i]): cause for i, cause in causes.items()}
        for i in sorted(causes):
            at = int(going[i])
            self.failures.add(round_number=work.round, run=int(work.run[at]), client=clients[at], cause=causes[i])
        if causes:
            failed |= self.failures.causes_in(work.round, clients)
        if done is not None:
            good = [place for place, i in enumerate(successes) if int(going[i]) not in failed]
            if len(good) < len(done):
                done = done.take(np.array(good, dtype=np.int64)) if good else None
        return done, failed

    def _note(self, done: TrainedWork) -> TrainedWork:
        """Note work that is done; the same, with the probability with which each client was picked, if known."""
        work, scenario = done.work, self._parts.scenario
        places = list(zip(work.run.tolist(), work.client.tolist(), strict=True))
        if done.memory:
            # copies, since a view would keep what all clients of the round remember
            memories = ({name: value.clone() for name, value in pick(done.memory, i).items()} for i in range(len(done)))
            self._memory.update(zip(places, memories, strict=True))
        if scenario.roster == "per_run":
            for i, (run, client) in enumerate(places):
                self._rosters[run].learn(client, work.model_before(i), pick(done.sent, i), float(done.loss[i]))
        parts = [
            self._rosters[run].participation(work.round, client, size)
            for (run, client), size in zip(places, work.sizes.tolist(), strict=True)
        ]
        self.participation += parts
        probabilities = [part.probability for part in parts if part.probability is not None]
        if len(probabilities) < len(parts):
            return done
        return replace(done, report={**done.report, "probability": torch.tensor(probabilities, dtype=torch.float64)})


def reports(done: TrainedWork) -> dict[str, FloatArray]:
    """The scalars that clients report about their work, by name (T,); a client without rows has no loss."""
    scalars = {name: value.double().numpy() for name, value in done.report.items()}
    return {**scalars, "steps": done.work.steps.astype(np.float64), "loss": done.loss}
