"""Made-up records of people in texts: known fields, and one that an attacker would like to infer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import ClientChoice, PlacedInjection
from fedmem.injections._secret_sharing import Position, Sharing, fits, plant, secret_examples, text_of
from fedmem.injections._template import Template, parse_template
from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.wording import choices

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve

_LISTS: Mapping[str, tuple[str, ...]] = {
    "first": (
        *("Ada", "Ben", "Cora", "Dan", "Edda", "Finn", "Gina", "Hugo", "Ida", "Jan", "Kira", "Leo", "Mia", "Nils"),
        *("Olga", "Paul", "Rosa", "Sven", "Tara", "Udo", "Vera", "Wim", "Xenia", "Yann", "Zoe"),
    ),
    "last": (
        *("Abel", "Brand", "Clay", "Dorn", "Eck", "Frost", "Glas", "Horn", "Iven", "Jost", "Kern", "Lamb", "Moor"),
        *("Nagel", "Oster", "Penn", "Quast", "Reed", "Stark", "Thorn", "Ulm", "Voss", "Wolf", "York", "Zorn"),
    ),
    "city": (
        *("Athens", "Berlin", "Cairo", "Delhi", "Essen", "Florence", "Geneva", "Hanoi", "Izmir", "Jakarta", "Kyoto"),
        *("Lisbon", "Madrid", "Nairobi", "Oslo", "Prague", "Quito", "Rome", "Seoul", "Tunis", "Utrecht", "Vienna"),
    ),
    "year": tuple(str(year) for year in range(1930, 2010)),
    "blood": ("AA", "AB", "AO", "BB", "BO", "OO"),
}


@dataclass(frozen=True, kw_only=True)
class Personal(PlacedInjection):
    """Records such as "Ada Brand, born 1961 in Oslo, account 281265", whose fields are drawn uniformly and apart.

    All people are made up. The audit example is the record at the start of a row. Only the tokens of one field are
    asked for, given the text before it. References are records of other people drawn in the same way. So a rank above
    chance shows that the field is known, and not that such records are known. Attribute inference asks which value of
    the field is the most probable for this person. That is `best_first` of the probe `extraction`, with `members: 1`.

    Fields

    - `template`: the record, with places as in the injection `secret`; lists that are known are first, last, city, year
      and blood.
    - `lists`: further lists, or other ones under these names.
    - `asks`: the place that is asked for: the name of a list, `digits`, `letters` or `capitals`.
    - `shared_by`: how many of `clients` hold each record (n_u); each of them holds `per_client` times as many.
    - `share`: instead of `copies`, the copies at each owner as a share of its own rows (p_e), at least one.
    - `position`: where a copy stands: `alone` in a row of its own; over tokens of one of the owner's own rows, at its
      `start`, its `end` or a `random` place.

    Guarantees:

    - no field is informative about another, so that only memorisation can reveal the field that is asked for;
    - no two records are alike; takes no real row; ids are negative.

    Errors: `ComponentError` as for `secret`, and if the template has no place of the name in `asks`. Also if one of its
    values is the beginning of another.

    >>> Personal(asks="city").total_copies(10, 900)
    40

    Reference: Yeom, Giacomelli, Fredrikson and Jha (2018), Privacy risk in machine learning, for attribute inference.
    """

    role: ClassVar[Role] = "canary"
    texts: ClassVar[bool] = True

    template: Annotated[str, annotated_types.MinLen(1)] = (
        "Client {words:first} {words:last}, born {words:year} in {words:city}, account {digits:6}"
    )
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asks: Annotated[str, annotated_types.MinLen(1)] = "digits"
    shared_by: Annotated[int, annotated_types.Ge(1)] = 1
    share: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] | None = None
    position: Position = "alone"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lists", ClientChoice({name: tuple(words) for name, words in self.lists.items()}))

    @property
    def _sharing(self) -> Sharing:
        return Sharing(owners=self.shared_by, copies=self.copies, share=self.share, position=self.position)

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Records are made, and stand in copies of their owners' rows."""
        return 0

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """Copies of all records at all their owners; with a `share`, the most that there can be."""
        count = self._num_owners(num_clients)
        return self._sharing.total(count * self.per_client, count, num_rows)

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """`per_client` records for each owner, in order of client."""
        template = self._parse_template(space)
        owners = self._choose_owners(clients, rng)
        tokens, masks = self._render(template, template.distinct_members(len(owners) * self.per_client, rng))
        addition = plant(tokens, masks, owners, self._sharing, space.shape[0], rng)
        return replace(addition, start=self.start, stop=self.stop, unmasked=self.unmasked)

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh records, and what all of them could say up to the field that is asked for."""
        template = self._parse_template(space)
        examples = secret_examples(*self._render(template, template.space.sample(count, rng)), space.shape[0])
        last = max(position for position, name in enumerate(template.names) if name == self.asks)
        records = Candidates(prefix=template.space.prefix, positions=template.space.positions[: last + 1])
        return References(family=self.name, inputs=examples.inputs, targets=examples.targets, records=records)

    def _parse_template(self, space: Space) -> Template:
        template = parse_template(self.template, {**_LISTS, **self.lists}, text_of(space, self.name))
        names = sorted({*template.names} - {""})
        if self.asks not in names:
            message = f"the template has no place {self.asks!r}{choices(self.asks, names)}"
            raise ComponentError("injections.asks", message)
        field_options = [
            options for name, options in zip(template.names, template.space.positions, strict=True) if name == self.asks
        ]
        if any(a != b and b[: len(a)] == a for options in field_options for a in options for b in options):
            raise ComponentError(
                "injections.asks",
                f"one value of {self.asks!r} is the beginning of another, so a model could never find the longer "
                "one more probable. Write a list in which none is",
            )
        fits(template.space.max_length, space, "injections.template")
        return template

    def _render(self, template: Template, numbers: Sequence[int]) -> tuple[list[Tokens], list[list[bool]]]:
        """The tokens of these records, and which of them are asked for."""
        tokens = [template.space.member_tokens(number) for number in numbers]
        return tokens, [template.field_mask(number, self.asks) for number in numbers]
