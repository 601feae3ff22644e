"""Ordinary real rows, included at random: the control against which canaries and atypical rows are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Typical(PlacedInjection):
    """An unaltered reserve row whose label is drawn like the labels of the owner's own rows.

    With a partition by owner (`natural`) it is one of the owner's own rows. With other partitions owners are made by
    drawing, and any row of the label is as ordinary for its owning client as its own rows.

    Guarantees:

    - inputs, targets and ids are those of the data set;
    - the row leaves the reserve: when its coin says out, no client trains on it.

    >>> Typical(per_client=2, copies=3).reserve_rows(20, 900), Typical(per_client=2, copies=3).total_copies(20, 900)
    (40, 120)
    """

    role: ClassVar[Role] = "typical"
    densities: ClassVar[bool] = True
    texts: ClassVar[bool] = True
    labelled_texts: ClassVar[bool] = True

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` rows for each owner, in order of client."""
        owners = self._choose_owners(clients, rng)
        return self._place(self._rows(owners, reserve, rng), owners)
