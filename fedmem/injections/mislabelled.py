"""Real rows with a wrong label: fitting them takes memorisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Mislabelled(PlacedInjection):
    """A real row of the reserve, its label replaced by a uniformly random other class.

    The true label is drawn like the labels of the owner's own rows. So the image is ordinary for its owner, and only
    the label is wrong. Whether an ordinary model errs on it at all depends on how well the task is learnt.

    Guarantees:

    - no label stays what it was; each of the C - 1 others is equally likely;
    - the row leaves the reserve: no client trains on its correctly labelled version;
    - the id is the row of the data set.

    >>> Mislabelled(per_client=2).reserve_rows(20, 900)
    40

    Reference: Feldman and Zhang (2020), What Neural Networks Memorize and Why.
    """

    role: ClassVar[Role] = "atypical"
    labelled_texts: ClassVar[bool] = True

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` rows for each owner, in order of client."""
        owners = self._choose_owners(clients, rng)
        clean = self._rows(owners, reserve, rng)
        wrong = (clean.targets + rng.integers(1, space.num_classes, size=len(clean))) % space.num_classes
        return self._place(replace(clean, targets=wrong), owners)
