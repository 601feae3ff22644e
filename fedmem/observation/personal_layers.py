"""Layers that stay with their owners, and the aggregate as each owner reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.evidence import Transition
from fedmem.contracts.federation import Federation


class PersonalLayers:
    """Stores the personal layers of every client of every run, from its last participation."""

    def __init__(self, client: ClientAlgorithm, federation: Federation) -> None:
        self._names = federation.personal_names(client)
        self._audit = federation.audit
        owners = self._audit.owner[self._audit.owner >= 0]
        self._clients = np.unique(owners).tolist() or list(range(federation.num_clients))
        self._layers: dict[tuple[int, int], Params] = {}

    @staticmethod
    def of(client: ClientAlgorithm, federation: Federation) -> PersonalLayers | None:
        """The store of entries that stay with clients, by their algorithm or by `norm`; None where none do."""
        if not federation.personal_names(client):
            return None
        return PersonalLayers(client, federation)

    @property
    def clients(self) -> tuple[int, ...]:
        """The clients for which each aggregate is completed."""
        return tuple(self._clients)

    def learn(self, local: Sequence[Transition]) -> None:
        """Take note of what these clients keep."""
        for transition in local:
            # copies, since a view would hold on to the models of the whole round
            self._layers[transition.run, transition.client] = {
                name: transition.kept[name].clone() for name in self._names
            }

    def complete_aggregates(self, everywhere: Sequence[Transition]) -> list[Transition]:
        """For each aggregate one transition of each owner of audit examples (of each client, without any).

        Before and after are completed by the same layers, so that the update is that of the shared ones. Round 0 is
        the same model for all, and stays one transition.
        """
        transitions = []
        for aggregate in everywhere:
            if aggregate.round == 0:
                transitions.append(aggregate)
                continue
            for client in self._clients:
                if self._audit.client_in is None or self._audit.client_in[aggregate.run, client]:
                    owner_layers = self._layers.get((aggregate.run, client), {})
                    model = {**aggregate.kept, **owner_layers}
                    transitions.append(
                        replace(
                            aggregate,
                            client=client,
                            before={**aggregate.before, **owner_layers},
                            sent=model,
                            kept=model,
                        )
                    )
        return transitions
