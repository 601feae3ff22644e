"""Ordinary real rows under a coin: the control against which canaries and atypical rows are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.types import ClientData, Examples, Injected, Role

if TYPE_CHECKING:
    from fedmem.spare import Spare


@dataclass(frozen=True, kw_only=True)
class Typical:
    """An unaltered spare row whose label is drawn like the labels of the holder's own rows.

    Fields

    - `per_client`: typical rows on every client.
    - `copies`: how often an in example is trained on in each epoch, all copies under one coin.
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - inputs, targets and ids are those of the data set;
    - the row leaves the reserve: when its coin says out, nobody trains on it.

    >>> Typical(per_client=2, copies=3).spare_rows(20), Typical(per_client=2, copies=3).total_copies(20)
    (40, 120)
    """

    role: ClassVar[Role] = "typical"

    per_client: Annotated[int, annotated_types.Ge(1)] = 4
    copies: Annotated[int, annotated_types.Ge(1)] = 1
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    @property
    def name(self) -> str:
        """What the kind is called in outputs."""
        return self.label or "typical"

    def spare_rows(self, num_clients: int) -> int:
        """One row for each example."""
        return num_clients * self.per_client

    def total_copies(self, num_clients: int) -> int:
        """Copies of all examples."""
        return num_clients * self.per_client * self.copies

    def plan(self, clients: Sequence[ClientData], spare: Spare, num_classes: int, rng: np.random.Generator) -> Injected:
        """`per_client` rows for each client, in order of client."""
        examples = Examples.concatenate(
            [spare.take_like(data.examples.targets, self.per_client, rng) for data in clients]
        )
        return Injected(
            examples=examples,
            holder=np.repeat(np.array([data.client for data in clients], dtype=np.int32), self.per_client),
            copies=np.full(len(examples), self.copies, dtype=np.int32),
        )
