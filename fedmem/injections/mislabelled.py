"""Real rows with a wrong label: fitting them takes memorisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.types import ClientData, Examples, Injected, Role

if TYPE_CHECKING:
    from fedmem.spare import Spare


@dataclass(frozen=True, kw_only=True)
class Mislabelled:
    """A spare real row, its label replaced by a uniformly random other class.

    The true label is drawn like the labels of the holder's own rows, so that the image is ordinary for its holder and
    only the label is wrong. Whether an ordinary model errs on it at all depends on how well the task is learnt.

    Fields

    - `per_client`: mislabelled rows on every client.
    - `copies`: how often an in example is trained on in each epoch, all copies under one coin.
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - no label stays what it was; each of the C - 1 others is equally likely;
    - the row leaves the reserve: its correctly labelled twin is trained on by nobody;
    - the id is the row of the data set.

    >>> Mislabelled(per_client=2).spare_rows(20)
    40

    Reference: Feldman and Zhang (2020), What Neural Networks Memorize and Why.
    """

    role: ClassVar[Role] = "atypical"

    per_client: Annotated[int, annotated_types.Ge(1)] = 4
    copies: Annotated[int, annotated_types.Ge(1)] = 1
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    @property
    def name(self) -> str:
        """What the kind is called in outputs."""
        return self.label or "mislabelled"

    def spare_rows(self, num_clients: int) -> int:
        """One row for each example."""
        return num_clients * self.per_client

    def total_copies(self, num_clients: int) -> int:
        """Copies of all examples."""
        return num_clients * self.per_client * self.copies

    def plan(self, clients: Sequence[ClientData], spare: Spare, num_classes: int, rng: np.random.Generator) -> Injected:
        """`per_client` rows for each client, in order of client."""
        clean = Examples.concatenate([spare.take_like(data.examples.targets, self.per_client, rng) for data in clients])
        wrong = (clean.targets + rng.integers(1, num_classes, size=len(clean))) % num_classes
        return Injected(
            examples=replace(clean, targets=wrong),
            holder=np.repeat(np.array([data.client for data in clients], dtype=np.int32), self.per_client),
            copies=np.full(len(clean), self.copies, dtype=np.int32),
        )
