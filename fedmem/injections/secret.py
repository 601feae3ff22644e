"""Canaries for texts: secrets of a template, each drawn from all that could stand in its places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.injections._placement import ClientChoice, PlacedInjection
from fedmem.injections._secret_sharing import Position, Sharing, fits, plant, secret_examples, text_of
from fedmem.injections._template import Template, parse_template
from fedmem.modalities.text.secret_space import Tokens

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class Secret(PlacedInjection):
    """Text such as "the access code is 281265", drawn uniformly from the members of a template, all different.

    The audit example is the secret at the start of a row. Only its own tokens are asked for, those in places of the
    template, and not the fixed text around them. A secret that several clients hold is one audit example with one coin;
    its owner is one of them.

    Fields

    - `template`: text with places: `{digits:6}`, `{letters:6}` and `{capitals:6}` are so many characters,
      `{words:NAME}` is one of a list; braces are written twice.
    - `lists`: the lists that the template names, such as `{city: [Rome, Oslo]}`.
    - `shared_by`: how many of `clients` hold each secret (n_u); each of them holds `per_client` times as many secrets.
    - `share`: instead of `copies`, the copies at each owner as a share of its own rows (p_e), at least one.
    - `position`: where a copy stands: `alone` in a row of its own; over tokens of one of the owner's own rows, at its
      `start`, its `end` or a `random` place.

    Guarantees:

    - every member of the template has the same odds, so that exposure under no memorisation is known;
    - takes no real row; ids are negative.

    Errors: `ComponentError` for data that are no text, and for a template without randomness or without text before its
    first place. Also for a token that is not in the vocabulary, a secret longer than a row, more secrets than members,
    and more owners than clients.

    >>> Secret(shared_by=4, copies=3, per_client=1).total_copies(10, 900)
    120

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer. Owners and copies as in Ramaswamy et
    al. (2020), Training production language models without memorizing user data.
    """

    role: ClassVar[Role] = "canary"
    texts: ClassVar[bool] = True

    template: Annotated[str, annotated_types.MinLen(1)] = "the access code is {digits:6}"
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shared_by: Annotated[int, annotated_types.Ge(1)] = 1
    share: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] | None = None
    position: Position = "alone"

    def __post_init__(self) -> None:
        super().__post_init__()
        # a mapping that can be hashed, of tuples
        object.__setattr__(self, "lists", ClientChoice({name: tuple(words) for name, words in self.lists.items()}))

    @property
    def _sharing(self) -> Sharing:
        return Sharing(owners=self.shared_by, copies=self.copies, share=self.share, position=self.position)

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Secrets are made, and stand in copies of their owners' rows."""
        return 0

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Copies of all secrets at all their owners; with a `share`, the most that there can be."""
        count = self._num_owners(num_clients)
        return self._sharing.total(count * self.per_client, count, num_rows)

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` secrets for each owner, in order of client."""
        template = self._parse_template(space)
        owners = self._choose_owners(clients, rng)
        tokens, masks = _render(template, template.distinct_members(len(owners) * self.per_client, rng))
        addition = plant(tokens, masks, owners, self._sharing, space.shape[0], rng)
        return replace(addition, start=self.start, stop=self.stop, unmasked=self.unmasked)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh members, and the space that they are drawn from."""
        template = self._parse_template(space)
        members = template.space
        examples = secret_examples(*_render(template, members.sample(count, rng)), space.shape[0])
        return References(family=self.name, inputs=examples.inputs, targets=examples.targets, space=members)

    def _parse_template(self, space: Space) -> Template:
        template = parse_template(self.template, self.lists, text_of(space, self.name))
        fits(template.space.max_length, space, "injections.template")
        return template


def _render(template: Template, numbers: Sequence[int]) -> tuple[list[Tokens], list[tuple[bool, ...]]]:
    """The tokens of these members, and which of them are secret."""
    space = template.space
    return [space.member_tokens(number) for number in numbers], [space.secret(number) for number in numbers]
