"""Rows made to harm one class: more typical of it than real rows are, and all labelled as another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import PlacedInjection

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Poison(PlacedInjection):
    """x' = x + pull (mean - x), labelled `target`: x is a reserve row of class `victim`, mean the mean of all such x.

    There is no trigger. The model learns another label where the rows of a class are. The pull towards their middle
    makes every poison row stand for the whole class. Its effect shows in the accuracy on the victim class, and in its
    cross-influence on test rows of that class. Its own memorisation shows the cost of that effect.

    With a partition by owner (`natural`), an owner gets its own rows of the victim class first. Where these are too
    few, the others are foreign to it, and `fedmem check` counts them.

    Fields

    - `victim`: the class that is harmed.
    - `target`: the label that its rows get.
    - `pull`: how far rows are drawn towards their common mean: 0 not at all (targeted label flips), 1 onto it.

    Guarantees:

    - rows come from the victim class alone, and every label is `target`;
    - values stay within the range of the data;
    - the row leaves the reserve: no client trains on its correctly labelled version;
    - the id is the row of the data set.

    Errors: `ComponentError` where victim and target are one class, the data have no such class, or too few rows of it.

    >>> Poison(per_client=2).reserve_rows(20, 900)
    40

    Reference: Biggio, Nelson and Laskov (2012), Poisoning Attacks against SVMs; Tolpegin et al. (2020) in federations.
    """

    role: ClassVar[Role] = "atypical"
    exclusive: ClassVar[bool] = False
    foreign_rows: ClassVar[bool] = True

    victim: Annotated[int, annotated_types.Ge(0)] = 0
    target: Annotated[int, annotated_types.Ge(0)] = 1
    pull: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.victim == self.target:
            raise ComponentError(
                "target",
                f"class {self.target} is the victim itself, and rightly labelled rows harm nobody; choose another",
            )

    @property
    def reserved_class(self) -> int:
        """The class whose rows become poison."""
        return self.victim

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The poison rows, in order of client."""
        owners = self._choose_owners(clients, rng)
        for field, label in (("victim", self.victim), ("target", self.target)):
            if label >= space.num_classes:
                raise ComponentError(
                    f"injections.{field}", f"there is no class {label}; use 0 to {space.num_classes - 1}"
                )
        rows = self._rows_of("victim", self.victim, owners, reserve, rng)
        mean = rows.inputs.mean(axis=0, dtype=np.float64)
        pulled = (rows.inputs + self.pull * (mean - rows.inputs)).astype(np.float32)
        return self._place(replace(rows, inputs=pulled, targets=np.full_like(rows.targets, self.target)), owners)
