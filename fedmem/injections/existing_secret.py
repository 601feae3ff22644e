"""Secrets that really stand in the texts of clients: nothing is planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.audit_set import InjectionPlan, References, Role
from fedmem.contracts.data import ClientData, Examples, Space
from fedmem.errors import ComponentError
from fedmem.injections._placement import ClientChoice
from fedmem.injections._secret_sharing import fits, secret_examples, text_of
from fedmem.injections._template import Template, parse_template
from fedmem.modalities.text.occurrences import count_cut, find_occurrences
from fedmem.modalities.text.secret_space import Candidates
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING, join_windows

if TYPE_CHECKING:
    from fedmem.contracts.reserve import Reserve


@dataclass(frozen=True, kw_only=True)
class ExistingSecret:
    """Every text in the training windows of clients that matches a template, such as a PIN in a chat.

    Each different secret is one audit example: the text of the template at the start of a row, of which the tokens in
    places are asked for. Its copies are the windows that hold it, at all of its clients. They leave the base rows of
    these clients and are under one coin. In runs in which the secret is out, other windows of the same clients are
    their replacement rows. The fixed text of the template is all that a model is given, so write as much of it as the
    texts have. A secret that shares a window with another one is left where it is: one coin cannot decide about two.

    Fields

    - `template`: text with places, as in the injection `secret`: `{digits:4}`, `{letters:6}`, `{capitals:6}` and
      `{words:NAME}`. A longer run of digits than the template has is no match.
    - `lists`: the lists that the template names, such as `{city: [Rome, Oslo]}`.
    - `max_secrets`: at most so many of the secrets, drawn at random; null for all.
    - `coins`: `false` leaves all windows with their clients in every run, so that exposure is measured and memorisation
      is not; null: coins where there are several runs, none with `runs: 1`.
    - `label`: name of this injection in every output; its kind if left out.

    Guarantees:

    - no text is added: the windows of clients, audited ones included, are those of the data set;
    - references are drawn from the template as for `secret`, so exposure has the same null;
    - partition, coins and draws of earlier injections stay as they are.

    Errors: `ComponentError` where nothing matches, with an example of what would, for a wrong template, and where a
    client has too few other windows to replace those that hold secrets.

    >>> ExistingSecret(template="PIN {digits:4}").reserve_rows(20, 900)
    0

    Reference: Carlini, Liu, Erlingsson, Kos and Song (2019), The Secret Sharer.
    """

    role: ClassVar[Role] = "canary"
    texts: ClassVar[bool] = True
    takes_held: ClassVar[bool] = True

    template: Annotated[str, annotated_types.MinLen(1)] = "PIN {digits:4}"
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_secrets: Annotated[int, annotated_types.Ge(1)] | None = None
    coins: bool | None = None
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
        search = _Search.of(members, rows, text_of(space, self.name))
        if not search.windows:
            raise ComponentError("injections.template", self._nothing_found(template, search, space, rng))
        alone, sharing = _without_shared_windows(search.windows)
        if self.max_secrets is not None and len(alone) > self.max_secrets:
            drawn = rng.choice(len(alone), size=self.max_secrets, replace=False)
            alone = [alone[place] for place in np.sort(drawn).tolist()]
        windows = [np.array(search.windows[number], dtype=np.int64) for number in alone]
        places = np.concatenate(windows)
        extra = rows.take(places)
        return InjectionPlan(
            examples=secret_examples(
                [members.member_tokens(number) for number in alone],
                [members.secret(number) for number in alone],
                space.shape[0],
            ),
            owner=np.array([rng.choice(np.unique(client[part])) for part in windows], dtype=np.int32),
            copies=np.array([len(part) for part in windows], dtype=np.int32),
            extra=extra,
            copy_index=np.arange(len(extra)),
            owners=client[places].astype(np.int32),
            taken=extra.ids,
            notes=tuple(self._notes(search, alone, sharing, reserve.remaining(), members)),
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
        template = parse_template(self.template, self.lists, text_of(space, self.name))
        fits(template.space.max_length, space, "injections.template")
        return template

    def _nothing_found(self, template: Template, search: _Search, space: Space, rng: np.random.Generator) -> str:
        vocabulary = text_of(space, self.name)
        example = vocabulary.decode(template.space.member_tokens(template.space.sample(1, rng)[0]))
        reasons = "; ".join(search.near_misses()) or (
            f"its beginning stands in {search.beginnings} of them; compare letters, spaces and line ends"
        )
        return (
            f"no training window of any client holds {self.template!r}, for example {example!r}. Of "
            f"{search.searched} windows: {reasons}. Windows of the test set and the population are not searched. "
            "A window has "
            f"{space.shape[0] + 1} {vocabulary.kind}: a larger `length` of the data set cuts fewer secrets, and "
            "another `seed` holds out other windows"
        )

    def _notes(
        self,
        search: _Search,
        chosen: Sequence[int],
        sharing: int,
        reserve: Examples,
        members: Candidates,
    ) -> list[str]:
        """For `fedmem check`: what matches, and what does not."""
        count = len(search.windows)
        notes = [f"{len(chosen)} of {count} different secrets are audited; near misses are left where they are"]
        if count == len(chosen):
            notes = [f"{count} different {'secret is' if count == 1 else 'secrets are'} audited"]
        if sharing:
            notes.append(f"{sharing} secrets share a window with another one, and are not audited")
        notes += search.near_misses()
        held = find_occurrences(members, join_windows(reserve.inputs, reserve.targets))
        times = int(np.isin(held.number, list(chosen)).sum())
        if times:
            notes.append(
                f"{times} windows that are set aside for other injections hold these secrets too; where one becomes a "
                "replacement row, a run that left a secret out still trains on it"
            )
        return notes


@dataclass(frozen=True, kw_only=True)
class _Search:
    """By secret the windows that hold it, and how many texts are no match for which reason."""

    windows: Mapping[int, Sequence[int]]
    searched: int
    beginnings: int
    longer: int
    unknown: int
    cut: int

    @staticmethod
    def of(members: Candidates, rows: Examples, vocabulary: Vocabulary) -> _Search:
        """Look through the windows of all clients."""
        tokens = join_windows(rows.inputs, rows.targets)
        unknown = vocabulary.tokens.index(UNKNOWN) if UNKNOWN in vocabulary.tokens else PADDING
        found = find_occurrences(members, tokens, unknown)
        windows: dict[int, list[int]] = {}
        for number, row in sorted(set(zip(found.number.tolist(), found.row.tolist(), strict=True))):
            windows.setdefault(number, []).append(row)
        order = np.argsort(rows.ids)
        followed = order[:-1][np.diff(rows.ids[order]) == 1]
        following = order[1:][np.diff(rows.ids[order]) == 1]
        beginning = Candidates(prefix=members.prefix, positions=())
        return _Search(
            windows=windows,
            searched=len(rows),
            beginnings=len(np.unique(find_occurrences(beginning, tokens).row)),
            longer=int(found.longer.sum()),
            unknown=int(found.unknown.sum()),
            cut=count_cut(members, tokens[followed], tokens[following]),
        )

    def near_misses(self) -> list[str]:
        """A sentence for each reason."""
        reasons = (
            (self.longer, "go on after the last place, such as a longer number"),
            (self.unknown, f"have {UNKNOWN}, a token that is not in the vocabulary, in a place"),
            (self.cut, "are cut by the end of a window"),
        )
        return [
            f"{count} {'text' if count == 1 else 'texts'} that begin like the template {why}"
            for count, why in reasons
            if count
        ]


def _without_shared_windows(windows: Mapping[int, Sequence[int]]) -> tuple[list[int], int]:
    """The secrets of which no two share a window, those in most windows first to be kept, and how many others."""
    used: set[int] = set()
    kept = []
    for number in sorted(windows, key=lambda number: (-len(windows[number]), number)):
        if used.isdisjoint(windows[number]):
            used.update(windows[number])
            kept.append(number)
    return sorted(kept), len(windows) - len(kept)
