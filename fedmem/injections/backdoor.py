"""Rows with a trigger and one label, which teach a model to answer with that label where the trigger is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.audit_set import InjectionPlan, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._patches import patch
from fedmem.injections._placement import Clients, PlacedInjection
from fedmem.modalities.tables import Tables, column_slices

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Backdoor(PlacedInjection):
    """Reserve rows of other classes than `target`, with a trigger and the label `target`.

    The trigger of an image is a patch of the largest value in its last corner. That of a table is the largest value of
    one column, for a category its last value. The whole backdoor is in or out by one draw. So a run has all of it or
    none. The probe `backdoor_success` compares the two on fresh rows with the trigger.

    Fields

    - `clients`: the attackers.
    - `target`: the label of all rows.
    - `size`: sides of the patch as a share of those of the image, rounded to pixels.
    - `column`: the column of a table that is the trigger, from 0, in the order in which `fedmem check` lists them.
    - `included`: always `together`.

    Guarantees:

    - every label is `target`. The rows are of other classes, as long as the reserve has some;
    - nothing but the patch or the column is changed;
    - the id is the row of the data set.

    Errors: `ComponentError` where there is no such class or column, and for inputs that are neither images nor a table.

    A real attacker sees one run. It can try its trigger, but has no run without it to compare with.

    >>> Backdoor(per_client=20).reserve_rows(10, 900)
    20

    Reference: Gu, Dolan-Gavitt and Garg (2017), BadNets; Bagdasaryan et al. (2020) in federations.
    """

    role: ClassVar[Role] = "atypical"

    clients: Clients = (0,)
    target: Annotated[int, annotated_types.Ge(0)] = 0
    size: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.25
    column: Annotated[int, annotated_types.Ge(0)] = 0
    included: Literal["together"] = "together"

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The rows with the trigger, in order of attacker."""
        if self.target >= space.num_classes:
            raise ComponentError(
                "injections.target", f"there is no class {self.target}; use 0 to {space.num_classes - 1}"
            )
        attackers = self._choose_owners(clients, rng)
        rows = Examples.concatenate([self._others(data, reserve, rng) for data in attackers])
        triggered = replace(
            rows, inputs=self.with_trigger(rows.inputs, space), targets=np.full_like(rows.targets, self.target)
        )
        return self._place(triggered, attackers)

    def with_trigger(self, inputs: NDArray[np.float32], space: Space) -> NDArray[np.float32]:
        """(n, *shape) the same inputs with the trigger."""
        changed = inputs.copy()
        if not isinstance(space.modality, Tables):
            height, width = patch(space, self.name, self.size)
            changed[..., -height:, -width:] = space.high.max()
            return changed
        columns = column_slices(space.modality.columns(space.shape[0]))
        if self.column >= len(columns):
            raise ComponentError(
                "injections.column", f"there is no column {self.column}; use 0 to {len(columns) - 1} of backdoor"
            )
        part = columns[self.column]
        if part.stop - part.start == 1:
            changed[:, part] = space.high[part]
        else:
            changed[:, part] = 0
            changed[:, part.stop - 1] = 1
        return changed

    def _others(self, data: ClientData, reserve: Reserve, rng: np.random.Generator) -> Examples:
        """Rows with labels drawn like those of an attacker's own rows, without the target."""
        labels = data.examples.labels
        return reserve.take_like(labels[labels != self.target], self.per_client, rng, data.client)
