"""The clients of a list take part in every round, and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, MinLen

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The clients of a list take part in every round, and no others; nothing is drawn.

    In a phase, clients that took no part before can continue the training. Their rows are then new to the model.

    Fields

    - `clients`: their numbers, from 0.

    Guarantees:

    - sorted and distinct, always the same clients;
    - independent of `rng`.

    Errors: `ComponentError` where a number is listed twice, or is no client.

    >>> history = History.start([1] * 4)
    >>> Listed(clients=(3, 1)).cohort(1, history, np.random.default_rng(0)).tolist()
    [1, 3]
    """

    reads: ClassVar[tuple[str, ...]] = ()

    clients: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)

    def __post_init__(self) -> None:
        twice = sorted({client for client in self.clients if self.clients.count(client) > 1})
        if twice:
            raise ComponentError("sampler.clients", f"client {twice[0]} is listed twice; list each client once")

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        if (last := max(self.clients)) >= history.num_clients:
            raise ComponentError(
                "sampler.clients",
                f"there is no client {last}; clients have numbers 0 to {history.num_clients - 1}, so choose among "
                f"these, or raise clients to {last + 1}",
            )
        return np.array(sorted(self.clients), dtype=np.int64)

    def min_separation(self, num_clients: int) -> int:
        """No round without them."""
        return 1

    def probabilities(self, round_number: int, history: History) -> FloatArray:
        """(N,) inclusion probabilities: 1 for those of the list, 0 for all others."""
        probabilities = np.zeros(history.num_clients)
        probabilities[list(self.clients)] = 1.0
        return probabilities
