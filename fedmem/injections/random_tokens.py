"""Canaries for texts: a few tokens drawn independently, each as often as the corpus has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import annotated_types
import numpy as np

from fedmem.injections._planted import Planted, audited, drawn, fits, text_of
from fedmem.types import ClientData, Injected, IntArray, References, Space

if TYPE_CHECKING:
    from fedmem.spare import Spare


@dataclass(frozen=True, kw_only=True)
class RandomTokens(Planted):
    """So many tokens in a row of their own, drawn with replacement by their frequency in the data, without `<unk>`.

    Nothing about their order can be learnt from text. The first token is what a model is given; asked for are the
    others. References are drawn likewise, their first token included, so canary and reference are exchangeable.

    Fields

    - `tokens`: how many, the first included.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for data that are no text, a canary longer than a row, and more holders than clients.

    >>> RandomTokens(shared_by=2, copies=5, per_client=1).total_copies(10, 900)
    100

    Reference: Thakkar, Ramaswamy, Mathews and Beaufays (2021), Understanding unintended memorization in language models
    under federated learning.
    """

    tokens: Annotated[int, annotated_types.Ge(2)] = 5

    def plan(self, clients: Sequence[ClientData], spare: Spare, space: Space, rng: np.random.Generator) -> Injected:
        """`per_client` canaries for each holder, in order of client."""
        holders = self.holders(clients, rng)
        rows = self._drawn(len(holders) * self.per_client, space, rng)
        return self._planted(rows.tolist(), self._asked(len(rows)), holders, space, rng)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh rows of tokens."""
        rows = self._drawn(count, space, rng)
        found = audited(rows.tolist(), self._asked(count), space.shape[0])
        return References(family=self.name, inputs=found.inputs, targets=found.targets)

    def _asked(self, count: int) -> list[list[bool]]:
        return [[True] * self.tokens] * count

    def _drawn(self, count: int, space: Space, rng: np.random.Generator) -> IntArray:
        """(count, tokens) token numbers."""
        text_of(space, self.name)
        fits(self.tokens, space, "injections.tokens")
        return drawn(space, (count, self.tokens), rng)
