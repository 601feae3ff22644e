"""Secrets that really stand in the texts of clients: nothing is planted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.contracts.injection import Included
from fedmem.errors import ComponentError
from fedmem.injections._placement import ClientChoice
from fedmem.injections._secret_search import NO_STARTS, SecretSearch, other_windows
from fedmem.injections._secret_sharing import fits, secret_examples, text_of
from fedmem.injections._template import Template, parse_template
from fedmem.modalities.text.occurrences import find_occurrences
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.windows import join_windows

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class ExistingSecret:
    """Every text in the training windows of clients that matches a template, such as a PIN in a chat.

    Each different secret is one audit example: the text of the template at the start of a row. The tokens in places are
    asked for. Its copies are the windows that hold it, at all of its clients. They include windows that hold a part of
    its value, because the end of a window cuts a copy. They leave the base rows of these clients and are under one
    coin. In runs in which the secret is out, other windows of the same clients are their replacement rows. A secret
    that shares a window with another one is left where it is: one coin cannot decide about two.

    The fixed text of the template is all that a model is given, so write as much of it as the texts have. Where the
    value stands without that text, the window stays with its client, and a warning says how many there are.

    Fields

    - `template`: text with places, as in the injection `secret`: `{digits:4}`, `{letters:6}`, `{capitals:6}` and
      `{words:NAME}`. A longer run of digits than the template has is no match.
    - `lists`: the lists that the template names, such as `{city: [Rome, Oslo]}`.
    - `max_secrets`: the largest number of secrets, drawn at random; null for all.
    - `coins`: `false` leaves all windows with their clients in every run, so that exposure is measured and memorisation
      is not. With null, inclusion is random where there are several runs, and it is not with `runs: 1`.
    - `included`: whether random inclusion is drawn for `each` secret, for all secrets `together`, or for all secrets of
      an owning client at once (`by_client`). Secrets that are in or out together count as one draw.
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - no text is added: the windows of clients, audited ones included, are those of the data set;
    - references are drawn from the template as for `secret`. Secrets that people wrote are not, and likely values rank
      high without memorisation. So exposure has no null, no bound and no p of its rank, and with `runs: 1` no p is
      given. `exposure_gain` and p from random inclusion hold;
    - partition, coins and draws of earlier injections stay as they are.

    Errors: `ComponentError` where nothing matches, with an example of what would match, and for a wrong template. Also
    where a client has too few other windows to replace those that hold secrets.

    >>> ExistingSecret(template="PIN {digits:4}").reserve_rows(20, 900)
    0

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer.
    """

    role: ClassVar[Role] = "canary"
    texts: ClassVar[bool] = True
    takes_held: ClassVar[bool] = True
    uniform_secrets: ClassVar[bool] = False

    template: Annotated[str, annotated_types.MinLen(1)] = "PIN {digits:4}"
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_secrets: Annotated[int, annotated_types.Ge(1)] | None = None
    coins: bool | None = None
    included: Annotated[Included, "identity_neutral"] = "each"
    label: Annotated[str, annotated_types.MinLen(1)] | None = None

    def __post_init__(self) -> None:
        # a mapping that can be hashed, of tuples
        object.__setattr__(self, "lists", ClientChoice({name: tuple(words) for name, words in self.lists.items()}))

    @property
    def name(self) -> str:
        """The name in outputs: the label, or without one the kind."""
        return self.label or "existing_secret"

    def reserve_rows(self, num_clients: int, num_rows: int) -> int:
        """Nothing is reserved: the windows are those of clients."""
        return 0

    def total_copies(self, num_clients: int, num_rows: int) -> int:
        """The most windows that there can be."""
        return num_rows

    def plan(
        self, clients: Sequence[ClientData], reserve: Reserve, space: Space, rng: np.random.Generator
    ) -> InjectionPlan:
        """The secrets in order of the template, and the windows that hold them."""
        template = self._parse_template(space)
        members = template.space
        rows = Examples.concatenate([data.examples for data in clients])
        client = np.repeat([data.client for data in clients], [len(data.examples) for data in clients])
        set_aside = clients[0].set_aside if clients else {}
        starts = clients[0].text_starts if clients else NO_STARTS
        search = SecretSearch.of(members, rows, text_of(space, self.name), set_aside, starts)
        if not search.windows:
            raise ComponentError("injections.template", self._nothing_found(template, search, space, rng))
        held = search.rows_by_secret()
        alone, sharing = _without_shared_windows(held)
        if self.max_secrets is not None and len(alone) > self.max_secrets:
            drawn = rng.choice(len(alone), size=self.max_secrets, replace=False)
            alone = [alone[place] for place in np.sort(drawn).tolist()]
        windows = [np.array(held[number], dtype=np.int64) for number in alone]
        places = np.concatenate(windows)
        extra = rows.take(places)
        return InjectionPlan(
            examples=secret_examples(
                [members.member_tokens(number) for number in alone],
                [members.secret(number) for number in alone],
                space.shape[0],
            ),
            owner=np.array([rng.choice(np.unique(client[search.windows[n]])) for n in alone], dtype=np.int32),
            copies=np.array([len(part) for part in windows], dtype=np.int32),
            extra=extra,
            copy_index=np.arange(len(extra)),
            owners=client[places].astype(np.int32),
            taken=extra.ids,
            notes=tuple(self._notes(search, alone, sharing)),
            warnings=tuple(_warnings(search, alone, members, rows, places, reserve.remaining())),
        )

    def references(self, count: int, space: Space, rng: np.random.Generator) -> References:
        """`count` fresh members, and the space that they are drawn from."""
        members = self._parse_template(space).space
        numbers = members.sample(count, rng)
        examples = secret_examples(
            [members.member_tokens(number) for number in numbers],
            [members.secret(number) for number in numbers],
            space.shape[0],
        )
        return References(family=self.name, inputs=examples.inputs, targets=examples.targets, space=members)

    def _parse_template(self, space: Space) -> Template:
        vocabulary = text_of(space, self.name)
        if vocabulary.kind == "subwords":
            raise ComponentError(
                "injections.kind",
                f"{self.name} finds secrets token by token, but a tokenizer spells a number in several ways, and most "
                "would not be found. Plant a `secret` instead, or write `tokens: characters` without tokenizer",
            )
        template = parse_template(self.template, self.lists, vocabulary)
        fits(template.space.max_length, space, "injections.template")
        return template

    def _nothing_found(self, template: Template, search: SecretSearch, space: Space, rng: np.random.Generator) -> str:
        vocabulary = text_of(space, self.name)
        example = vocabulary.decode(template.space.member_tokens(template.space.sample(1, rng)[0]))
        where = _elsewhere(search)
        reasons = "; ".join(filter(None, [*where, *search.near_misses(), search.other_spellings()])) or (
            f"its beginning stands in {search.beginnings} of them; compare letters, spaces and line ends"
        )
        return (
            f"no training window of any client holds {self.template!r}, for example {example!r}. Of "
            f"{search.searched} windows: {reasons}. {'Nobody trains on windows that are set aside. ' * bool(where)}"
            f"A window has {space.shape[0] + 1} {vocabulary.kind}: a larger `dataset.length` cuts fewer secrets. With "
            "`population: 0`, a lower `dataset.test` or another `seed`, clients hold other or more windows"
        )

    def _notes(self, search: SecretSearch, chosen: Sequence[int], sharing: int) -> list[str]:
        """For `fedmem check`: what matches, and what does not."""
        count = len(search.windows)
        notes = [f"{len(chosen)} of {count} different secrets are audited; near misses are left where they are"]
        if count == len(chosen):
            notes = [f"{count} different {'secret is' if count == 1 else 'secrets are'} audited"]
        if sharing:
            notes.append(
                f"{sharing} {'secret shares' if sharing == 1 else 'secrets share'} a window with another one, and "
                f"{'is' if sharing == 1 else 'are'} not audited"
            )
        if search.elsewhere:
            notes.append(f"{'; '.join(_elsewhere(search))}; nobody trains on them")
        return notes + search.near_misses()


def _elsewhere(search: SecretSearch) -> list[str]:
    """How many windows that no client holds have a secret, and why no client holds them."""
    return [
        f"{count} {'window that holds it is' if count == 1 else 'windows that hold it are'} {why}"
        for why, count in search.elsewhere.items()
    ]


def _warnings(
    search: SecretSearch,
    chosen: Sequence[int],
    members: Candidates,
    rows: Examples,
    taken: IntArray,
    reserve: Examples,
) -> Iterator[str]:
    """Which copies were cut, and what runs may still train on that leave the secrets out."""
    cut = sum(search.cut.get(number, 0) for number in chosen)
    pieces = len({row for number in chosen for row in search.pieces.get(number, ())})
    if cut:
        yield (
            f"{cut} {'copy of a secret is' if cut == 1 else 'copies of secrets are'} cut by the end of a window; "
            f"{'the window' if pieces == 1 else f'the {pieces} windows'} of clients with a part of the value "
            f"{'is' if pieces == 1 else 'are'} in or out together. A larger `dataset.length` cuts fewer"
        )
    tokens = join_windows(rows.inputs, rows.targets)
    if spellings := search.other_spellings():
        yield spellings
    others = {row for number in chosen for row in other_windows(members, number, tokens, taken.tolist())}
    if others:
        yield (
            f"{len(others)} other {'window of a client holds' if len(others) == 1 else 'windows of clients hold'} the "
            "value of a secret without the text of the template before it. Runs that leave the secret out still train "
            "on such windows. So memorisation and in − out of extraction may be too small, also where they are "
            "zero. "
            "Look at exposure and at extraction of secrets that are in, or write a template that the other texts match"
        )
    in_reserve = find_occurrences(members, join_windows(reserve.inputs, reserve.targets))
    times = int(np.isin(in_reserve.number, list(chosen)).sum())
    if times:
        yield (
            f"{times} {'window' if times == 1 else 'windows'} set aside for other injections also hold these secrets. "
            "Where one becomes a replacement row, a run that left a secret out still trains on it"
        )


def _without_shared_windows(windows: Mapping[int, Sequence[int]]) -> tuple[list[int], int]:
    """The secrets of which no two share a window, those in most windows first to be kept, and how many others."""
    used: set[int] = set()
    kept = []
    for number in sorted(windows, key=lambda number: (-len(windows[number]), number)):
        if used.isdisjoint(windows[number]):
            used.update(windows[number])
            kept.append(number)
    return sorted(kept), len(windows) - len(kept)
