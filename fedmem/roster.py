"""Who takes part in which round: drawn round by round, once for all runs that share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.components import History
from fedmem.seeding import stream
from fedmem.types import Federation, IntArray, Params

if TYPE_CHECKING:
    from fedmem.scenario import Scenario

FIRST_NODE = 1001
"""Node id of client 0; small ids are taken by Flower's own server side."""


def rosters(scenario: Scenario, federation: Federation, runs: Sequence[int]) -> dict[int, Roster]:
    """The roster of each of these runs; with `roster: shared` the cohorts are drawn, and their history held, once."""
    if scenario.roster == "own":
        return {run: Roster(scenario, federation, run) for run in runs}
    drawn = _Drawn(scenario, federation, None)
    return {run: Roster(scenario, federation, run, drawn) for run in runs}


class Roster:
    """The cohorts of one run. With `roster: shared` they are drawn without looking at the run, hence at its coins."""

    def __init__(self, scenario: Scenario, federation: Federation, run: int, drawn: _Drawn | None = None) -> None:
        self._own = scenario.roster == "own"
        self._drawn = drawn or _Drawn(scenario, federation, run if self._own else None)
        self._there = None if federation.audit.client_in is None else federation.audit.client_in[run]

    def cohort(self, round: int) -> tuple[int, ...]:
        """Sorted clients of this round. Rounds are drawn in order and once each, because samplers may look back."""
        picked = self._drawn.cohort(round)
        if self._there is not None:
            # The place of a client that the run leaves out stays empty; nobody moves up.
            return tuple(client for client in picked if self._there[client])
        return picked

    def trained(self, client: int, before: Params, sent: Params, loss: float) -> None:
        """What a client's work shows: it depends on coins, so only a roster of the run's own may learn it."""
        if self._own:
            self._drawn.trained(client, before, sent, loss)

    def node(self, client: int) -> int:
        """Where the grid knows the client."""
        return FIRST_NODE + client


class _Drawn:
    """The cohorts as the sampler drew them, and what it may look at. Nothing of a round grows with N but its draw."""

    def __init__(self, scenario: Scenario, federation: Federation, run: int | None) -> None:
        self._scenario = scenario
        self._run = run
        audit, clients = federation.audit, federation.num_clients
        slots, atypical = (
            np.bincount(audit.holder[counted], weights=audit.copies[counted], minlength=clients).astype(np.int64)
            for counted in (audit.holder >= 0, (audit.holder >= 0) & (audit.role == "atypical"))
        )
        order = stream(scenario.seed, "roster order", run=run).permutation(clients)
        self._known = History.start(federation.base_sizes + slots, atypical, order)
        # Samplers look at what is written here after every round, without a copy of it, and cannot write themselves.
        arrays: dict[str, Any] = {
            name: array.view() for name, array in vars(self._known).items() if name != "num_clients"
        }
        for view in arrays.values():
            view.flags.writeable = False
        self.history = replace(self._known, **arrays)
        self._cohorts: list[tuple[int, ...]] = []

    def cohort(self, round: int) -> tuple[int, ...]:
        """The clients that the sampler picked for this round."""
        while len(self._cohorts) < round:
            number = len(self._cohorts) + 1
            rng = stream(self._scenario.seed, "roster", run=self._run, round=number)
            picked: IntArray = self._scenario.sampler.cohort(number, self.history, rng)
            self._known.last_round[picked] = number
            self._cohorts.append(tuple(picked.tolist()))
        return self._cohorts[round - 1]

    def trained(self, client: int, before: Params, sent: Params, loss: float) -> None:
        """Loss and norm of the update of this client."""
        import torch

        moved = [sent[name].double() - value.double() for name, value in before.items()]
        self._known.last_loss[client] = loss
        self._known.last_norm[client] = float(torch.stack([part.square().sum() for part in moved]).sum().sqrt())
