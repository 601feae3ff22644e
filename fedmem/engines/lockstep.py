"""The default engine: all runs of a bank in one process, in step, their clients trained as one batch.

Each run is a coroutine that executes its strategy's own `start`. Where Flower would send messages and wait, the
coroutine hands them to the scheduler here. The scheduler trains all waiting clients at once and then resumes the runs
in order. No threads, no clock: the same scenario gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from fedmem.contracts.evidence import Lost
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import PickedCohort, Pilot
from fedmem.contracts.watcher import Watcher
from fedmem.engines._cohort_work import CohortWork, Finished, TrainingParts, finish_training
from fedmem.engines._flower import in_process
from fedmem.engines._message_path import MessagePath
from fedmem.engines._rule_path import RulePath
from fedmem.engines._statistics import require_final_variances
from fedmem.federation.roster import Roster, rosters
from fedmem.training.client_work import LocalWork
from fedmem.training.executor import Executor

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


class Lockstep:
    """Trains the runs of a bank. `watcher` sees every transition that it wants, run by run."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        work: LocalWork,
        watcher: Watcher | None,
        on_round: Callable[[int], None] = lambda round_number: None,
        pilot: Pilot | None = None,
    ) -> None:
        self._parts = TrainingParts(
            scenario=scenario,
            federation=federation,
            executor=executor,
            work=work,
            watchers=() if watcher is None else (watcher,),
            on_round=on_round,
        )
        self._pilot = pilot
        self._rosters: dict[int, Roster] = {}

    def train(
        self,
        runs: Sequence[int],
        server: str = "messages",
        lost: Lost = MappingProxyType({}),
        only: Mapping[int, Iterable[int]] = MappingProxyType({}),
    ) -> Finished:
        """Train these runs from the first round to the last, by Flower's messages or by the strategy's rule.

        A client in `lost` failed in a run that is not among these, and is dropped here without a try. In a run in
        `only`, no other clients than these take part; cohorts are drawn as if all did.
        """
        self._rosters = rosters(self._parts.scenario, self._parts.federation, runs, self._pilot)
        for run, clients in only.items():
            self._rosters[run].keep_only(clients, self._parts.federation.num_clients)
        cohorts = CohortWork(self._parts, self._rosters, lost)
        path = (MessagePath if server == "messages" else RulePath)(self._parts, self._rosters, cohorts)
        with in_process():
            params = path.train(runs)
        require_final_variances(params, self._parts.federation.mode, self._parts.scenario.rounds)
        return finish_training(params, cohorts.participation, cohorts.failures.lost)

    def picked_cohort(self, run: int, round_number: int) -> PickedCohort:
        """The clients that were picked for a round of a run that was trained."""
        return self._rosters[run].picked_in(round_number)
