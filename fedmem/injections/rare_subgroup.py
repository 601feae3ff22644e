"""Rows of one class that no client but the owners has: a subgroup of the population that lives with few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import ClientChoice, Clients, PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve

_ONE: Clients = ClientChoice({"count": 1})


@dataclass(frozen=True, kw_only=True)
class RareSubgroup(PlacedInjection):
    """Real rows of class `of_class`, unaltered; every other training row of this class is kept from all clients.

    The federation takes the class out of base rows and replacement rows before partitioning. So all that a model knows
    about it comes from rows under our coins. Test and population keep the class, which shows the value of knowing it.
    Labels that other injections make up may still name the class.

    With a partition by owner (`natural`), an owner gets its own rows of the class first. Where these are too few, the
    others are foreign to it, and `fedmem check` counts them.

    Fields

    - `clients`: the clients that hold the subgroup: `all`, a list of clients, `{share: 0.3}` of them or `{count: 4}` of
      them.
    - `of_class`: the class that is made rare.

    Guarantees:

    - inputs, targets and ids are those of the data set;
    - in every run no base row and no replacement row has this class.

    Errors: `ComponentError` where the data have no such class or too few rows of it.

    >>> RareSubgroup(per_client=3, clients={"count": 2}).reserve_rows(20, 900)
    6

    Reference: Feldman (2020), Does Learning Require Memorization?
    """

    role: ClassVar[Role] = "atypical"
    labelled_texts: ClassVar[bool] = True
    exclusive: ClassVar[bool] = True
    foreign_rows: ClassVar[bool] = True

    clients: Clients = _ONE
    of_class: Annotated[int, annotated_types.Ge(0)] = 0

    @property
    def reserved_class(self) -> int:
        """The class whose rows no client holds, except for injected ones."""
        return self.of_class

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` rows for each owner, in order of client."""
        owners = self._choose_owners(clients, rng)
        if self.of_class >= space.num_classes:
            raise ComponentError(
                "injections.of_class", f"there is no class {self.of_class}; use 0 to {space.num_classes - 1}"
            )
        return self._place(self._rows_of("of_class", self.of_class, owners, reserve, rng), owners)
