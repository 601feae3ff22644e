"""A local training to be repeated with a change: what a probe asks `Context.replays` for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedmem.contracts.arrays import Params


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Changes to a local training; without any, it is repeated bit for bit.

    Everything else stays: batches, server payload and client state. So do the draws of defences, of dropout and of
    noise, unless `draws` asks for others.

    A row that is left out keeps its places in the batches, and counts in their means with a gradient of zero. So every
    other row moves the model as much as before, as with the fixed divisor of `dp_sgd`. A batch of which all rows are
    left out has a gradient of zero. Rows that are in no batch change nothing.

    Attributes:
        start: The model that the client starts from instead; None for the one that it was sent.
        without: Rows of the store that are left out.
        extra: Rows of the store, each with the row that is trained on in all of its places.
        steps: Number of local steps; None for as many as the client did.
        draws: 0 for the draws of the client. Each other number stands for independent draws of defences, dropout and
            noise, as made by an adversary that does not know those of the client. Where all runs have the same batches,
            they share the draws of dropout, which then stay.

    >>> Replay(without=(3,)).is_unchanged, Replay().is_unchanged
    (False, True)
    """

    start: Params | None = None
    without: tuple[int, ...] = ()
    extra: Mapping[int, int] = field(default_factory=dict)
    steps: int | None = None
    draws: int = 0

    @property
    def is_unchanged(self) -> bool:
        """Whether the training is repeated as it was."""
        return not (self.without or self.extra or self.draws) and self.start is None and self.steps is None
