"""Canaries for texts: secrets of a template, each drawn from all that could stand in its places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import annotated_types
import numpy as np

from fedmem.candidates import Tokens
from fedmem.injections._planted import Templated, audited
from fedmem.injections._template import Template
from fedmem.types import ClientData, Injected, References, Space

if TYPE_CHECKING:
    from fedmem.spare import Spare


@dataclass(frozen=True, kw_only=True)
class Secret(Templated):
    """Text such as "the access code is 281265", drawn uniformly from the members of a template, all different.

    The audit example is the secret at the start of a row; asked for are its own tokens, those in places of the
    template, and not the fixed text around them. A secret that several clients hold is one audit example with one coin;
    its holder is one of them.

    Guarantees:

    - every member of the template has the same odds, so that exposure under no memorisation is known;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for data that are no text, a template without randomness or without text before its first
    place, a token that is not in the vocabulary, a secret longer than a row, more secrets than members, and more
    holders than clients.

    >>> Secret(shared_by=4, copies=3, per_client=1).total_copies(10, 900)
    120

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer; holders and copies as Ramaswamy et al.
    (2020), Training production language models without memorizing user data.
    """

    template: Annotated[str, annotated_types.MinLen(1)] = "the access code is {digits:6}"

    def plan(self, clients: Sequence[ClientData], spare: Spare, space: Space, rng: np.random.Generator) -> Injected:
        """`per_client` secrets for each holder, in order of client."""
        template = self._parsed(space)
        holders = self.holders(clients, rng)
        tokens, own = _written(template, template.distinct(len(holders) * self.per_client, rng))
        return self._planted(tokens, own, holders, space, rng)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh members, and the space that they are drawn from."""
        template = self._parsed(space)
        members = template.space
        found = audited(*_written(template, members.sample(count, rng)), space.shape[0])
        return References(family=self.name, inputs=found.inputs, targets=found.targets, space=members)

    def _parsed(self, space: Space) -> Template:
        return self._read({}, space)


def _written(template: Template, numbers: Sequence[int]) -> tuple[list[Tokens], list[tuple[bool, ...]]]:
    """The tokens of these members, and which of them are secret."""
    space = template.space
    return [space.member(number) for number in numbers], [space.secret(number) for number in numbers]
