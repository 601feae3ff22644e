"""The cohort of each round, drawn round by round: once for all runs that share a roster, by a pilot, or by each run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.evidence import Participation
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import Availability, History, KnownProbabilities, PickedCohort, Pilot
from fedmem.contracts.validation import cohort_of, probabilities_of, reachable_of
from fedmem.guards.guarding import Guard
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

FIRST_NODE = 1001
"""Node id of client 0; small ids are taken by Flower's own server side."""

CLIENTS_LOOKED_AT = 10**8
"""Clients times cohorts that are drawn ahead at most; of a longer training, the first rounds stand for all."""


def client_at(node: int) -> int:
    """The client of a node.

    >>> client_at(FIRST_NODE + 3)
    3
    """
    return int(node) - FIRST_NODE


def rosters(
    scenario: Scenario, federation: Federation, runs: Sequence[int], pilot: Pilot | None = None
) -> dict[int, Roster]:
    """The roster of each of these runs. Unless each run draws its own, cohorts and their history are shared.

    Where the pilot is missing, cohorts are drawn as if no client had trained.
    """
    if scenario.roster == "per_run":
        return {run: Roster(scenario, federation, run) for run in runs}
    cohorts = pilot or _CohortDraws(scenario, federation, None)
    return {run: Roster(scenario, federation, run, cohorts) for run in runs}


class Roster:
    """The cohorts of one run. Unless they are its own, their draws do not depend on the run, hence not on its coins."""

    def __init__(
        self, scenario: Scenario, federation: Federation, run: int, cohorts: _CohortDraws | Pilot | None = None
    ) -> None:
        self._own_draws = None if scenario.roster != "per_run" else _CohortDraws(scenario, federation, run)
        self._draws = self._own_draws or cohorts or _CohortDraws(scenario, federation, None)
        client_in = federation.audit.client_in
        self._missing = frozenset(federation.absent_clients) | (
            frozenset() if client_in is None else frozenset(np.flatnonzero(~client_in[run]).tolist())
        )
        self._run = run

    def keep_only(self, clients: Iterable[int], num_clients: int) -> None:
        """Leave all other clients out of every round; their places in cohorts stay empty."""
        self._missing |= set(range(num_clients)).difference(clients)

    def cohort(self, round_number: int) -> tuple[int, ...]:
        """Sorted clients of this round. Rounds are drawn in order and once each, because samplers may look back."""
        clients = self.picked_in(round_number).clients
        # The place of a client that the run leaves out stays empty; no other client takes it.
        return tuple(client for client in clients if client not in self._missing) if self._missing else clients

    def picked_in(self, round_number: int) -> PickedCohort:
        """The clients that were picked, including those that the run leaves out."""
        return self._draws.picked_in(round_number)

    def learn(self, client: int, before: Params, sent: Params, loss: float) -> None:
        """Loss and norm of a client's update. They depend on coins, so only a roster of the run's own may use them."""
        if self._own_draws is not None:
            self._own_draws.learn(client, before, sent, loss)

    def node(self, client: int) -> int:
        """The node id of a client."""
        return FIRST_NODE + client

    def participation(self, round_number: int, client: int, num_examples: int) -> Participation:
        """The record of a client that was trained in a round."""
        probability = self.picked_in(round_number).probability_of(client)
        return Participation(
            run=self._run,
            round=round_number,
            client=client,
            num_examples=num_examples,
            failed=False,
            probability=probability,
        )

    def failure(self, round_number: int, client: int) -> Participation:
        """The record of a client that failed in a round."""
        return replace(self.participation(round_number, client, 0), failed=True)


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """The clients that participate in the first `rounds` rounds of a scenario, before anything is trained.

    `rosters` are one for all `runs`, or one for each. The cohorts of a sampler that looks at
    losses are not known; they are drawn as if no client had trained.
    """

    runs: int
    rounds: int
    rosters: Sequence[Roster]

    @staticmethod
    def draw(scenario: Scenario, federation: Federation) -> Cohorts:
        """The cohorts from the streams of the scenario, as the engine will draw them."""
        is_shared = scenario.roster != "per_run" and federation.audit.client_in is None
        roster_list = list(rosters(scenario, federation, range(1 if is_shared else scenario.runs)).values())
        max_rounds = max(1, CLIENTS_LOOKED_AT // (len(roster_list) * max(1000, scenario.clients)))
        return Cohorts(runs=scenario.runs, rounds=min(scenario.rounds, max_rounds), rosters=roster_list)

    def participants(self, round_number: int) -> tuple[IntArray, IntArray]:
        """The pairs of a roster and a participating client (T,), sorted by roster."""
        cohorts = [roster.cohort(round_number) for roster in self.rosters]
        sizes = [len(cohort) for cohort in cohorts]
        clients = np.array([client for cohort in cohorts for client in cohort], dtype=np.int64)
        return np.repeat(np.arange(len(cohorts)), sizes), clients

    def count(self, round_number: int) -> int:
        """The number of client trainings in all runs together."""
        return sum(len(roster.cohort(round_number)) for roster in self.rosters) * self.runs_per_roster

    @property
    def runs_per_roster(self) -> int:
        """The number of runs that share a roster."""
        return self.runs // len(self.rosters)

    @property
    def largest_cohort(self) -> int:
        """The largest cohort of a run."""
        return max(
            len(roster.cohort(round_number)) for roster in self.rosters for round_number in range(1, self.rounds + 1)
        )


class _CohortDraws:
    """The cohorts that the sampler drew, and the history that it may read. Only the draw of a round grows with N."""

    def __init__(self, scenario: Scenario, federation: Federation, run: int | None) -> None:
        self._scenario = scenario
        self._run = run
        audit, clients = federation.audit, federation.num_clients
        owners = audit.owners
        copies, atypical = (
            np.bincount(owners[mask], minlength=clients)
            for mask in (owners >= 0, (owners >= 0) & (audit.role == "atypical")[audit.subject])
        )
        order = stream(scenario.training_seed, "roster order", run=run).permutation(clients)
        uniforms = stream(scenario.training_seed, "roster lots", run=run).random(clients)
        self._start = History.start(federation.base_sizes + copies, atypical, order, uniforms)
        # Samplers read this history after every round without a copy, and cannot write to it.
        arrays: dict[str, Any] = {
            name: array.view() for name, array in vars(self._start).items() if name != "num_clients"
        }
        for view in arrays.values():
            view.flags.writeable = False
        self.history = replace(self._start, **arrays)
        self._rounds: list[PickedCohort] = []

    def picked_in(self, round_number: int) -> PickedCohort:
        """The clients that the sampler picked for this round."""
        while len(self._rounds) < round_number:
            self._rounds.append(self._draw(len(self._rounds) + 1))
        return self._rounds[round_number - 1]

    def _draw(self, number: int) -> PickedCohort:
        """The next round."""
        sampler, seed, count = self._scenario.sampler, self._scenario.training_seed, self._start.num_clients
        place: dict[str, Any] = {"round": number, "run": self._run}
        if isinstance(sampler, Availability):
            rng = stream(seed, "roster reachable", run=self._run, round_number=number)
            with Guard("sampler", sampler, "reachable_clients", **place) as guard:
                self._start.available[:] = reachable_of(
                    guard, sampler.reachable_clients(number, self.history, rng), count
                )
        rng = stream(seed, "roster", run=self._run, round_number=number)
        with Guard("sampler", sampler, "cohort", **place) as guard:
            clients = cohort_of(guard, sampler.cohort(number, self.history, rng), count)
        probabilities = None
        if isinstance(sampler, KnownProbabilities):
            with Guard("sampler", sampler, "probabilities", **place) as guard:
                probabilities = probabilities_of(guard, sampler.probabilities(number, self.history), clients, count)
        self._start.last_round[clients] = number
        return PickedCohort(
            clients=tuple(clients.tolist()), probabilities=None if probabilities is None else probabilities[clients]
        )

    def learn(self, client: int, before: Params, sent: Params, loss: float) -> None:
        """Loss and norm of the update of this client."""
        import torch

        changes = [sent[name].double() - value.double() for name, value in before.items()]
        self._start.last_loss[client] = loss
        self._start.last_norm[client] = float(torch.stack([part.square().sum() for part in changes]).sum().sqrt())
