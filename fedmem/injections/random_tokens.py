"""Canaries for texts: a few tokens drawn independently, each as often as the corpus has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._placement import PlacedInjection
from fedmem.injections._secret_sharing import Position, Sharing, draw_tokens, fits, plant, secret_examples, text_of

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class RandomTokens(PlacedInjection):
    """A row of random tokens, drawn with replacement by their frequency in the data, without `<unk>`.

    Nothing about their order can be learnt from text. A model is given the first token, and the others are asked for.
    References are drawn in the same way, their first token included, so canary and reference are exchangeable.

    Fields

    - `tokens`: how many, the first included.
    - `shared_by`: how many of `clients` hold each canary (n_u); each of them holds `per_client` times as many.
    - `share`: instead of `copies`, the copies at each owner as a share of its own rows (p_e), at least one.
    - `position`: where a copy stands: `alone` in a row of its own; over tokens of one of the owner's own rows, at its
      `start`, its `end` or a `random` place.

    Guarantees:

    - canaries and references come from one generator and are independent;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for data that are no text, a canary longer than a row, and more owners than clients.

    >>> RandomTokens(shared_by=2, copies=5, per_client=1).total_copies(10, 900)
    100

    Reference: Thakkar, Ramaswamy, Mathews and Beaufays (2021), Understanding unintended memorization in language models
    under federated learning.
    """

    role: ClassVar[Role] = "canary"
    texts: ClassVar[bool] = True

    tokens: Annotated[int, annotated_types.Ge(2)] = 5
    shared_by: Annotated[int, annotated_types.Ge(1)] = 1
    share: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] | None = None
    position: Position = "alone"

    @property
    def _sharing(self) -> Sharing:
        return Sharing(owners=self.shared_by, copies=self.copies, share=self.share, position=self.position)

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Canaries are made, and stand in copies of their owners' rows."""
        return 0

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Copies of all canaries at all their owners; with a `share`, the most that there can be."""
        count = self._num_owners(num_clients)
        return self._sharing.total(count * self.per_client, count, num_rows)

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` canaries for each owner, in order of client."""
        owners = self._choose_owners(clients, rng)
        rows = self._draw(len(owners) * self.per_client, space, rng)
        addition = plant(rows.tolist(), self._asked_mask(len(rows)), owners, self._sharing, space.shape[0], rng)
        return replace(addition, start=self.start, stop=self.stop, unmasked=self.unmasked)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh rows of tokens."""
        rows = self._draw(count, space, rng)
        examples = secret_examples(rows.tolist(), self._asked_mask(count), space.shape[0])
        return References(family=self.name, inputs=examples.inputs, targets=examples.targets)

    def _asked_mask(self, count: int) -> list[list[bool]]:
        return [[True] * self.tokens] * count

    def _draw(self, count: int, space: Space, rng: np.random.Generator) -> IntArray:
        """(count, tokens) token numbers."""
        text_of(space, self.name)
        fits(self.tokens, space, "injections.tokens")
        return draw_tokens(space, (count, self.tokens), rng)
