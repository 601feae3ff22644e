"""Texts with places to fill in: what a secret looks like, and all that it could have been."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.errors import ComponentError
from fedmem.types import IntArray
from fedmem.vocabulary import Vocabulary
from fedmem.wording import choices

_ALPHABETS: Mapping[str, str] = {
    "digits": string.digits,
    "letters": string.ascii_lowercase,
    "capitals": string.ascii_uppercase,
}
_NUMBERED = 1 << 40
"""Up to so many members are drawn by number; of more, the same one hardly ever comes twice."""
_PLACE = "injections.template"
_ALLOWED = "{digits:6}, {letters:6}, {capitals:6}, or {words:NAME} with NAME among `lists`"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a template: `options` are token sequences of which one stands there; one option is fixed text.

    `name` is that of the place, empty for what cannot differ.
    """

    name: str
    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """Parts one after the other; a member takes one option of each, uniformly and independently."""

    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """How many members there are."""
        return math.prod(len(part.options) for part in self.parts)

    @property
    def longest(self) -> int:
        """The most tokens that a member has."""
        return sum(max(map(len, part.options)) for part in self.parts)

    @property
    def prefix(self) -> tuple[int, ...]:
        """The tokens before the first place."""
        return self.parts[0].options[0] if not self.parts[0].name else ()

    def drawn(self, count: int, rng: np.random.Generator) -> IntArray:
        """(count, parts) the option of each part, with replacement."""
        return rng.integers([len(part.options) for part in self.parts], size=(count, len(self.parts)))

    def distinct(self, count: int, rng: np.random.Generator) -> IntArray:
        """(count, parts) likewise, all different. Errors: `ComponentError` if there are fewer members."""
        if count > self.size:
            raise ComponentError(
                "injections.template",
                f"{count} different secrets are wanted, but the template has {self.size} members; give it more "
                "places, or lower per_client or clients",
            )
        if self.size > _NUMBERED:
            found = self.drawn(count, rng)
            while len(np.unique(found, axis=0)) < count:
                found = self.drawn(count, rng)
            return found
        numbers = rng.choice(self.size, size=count, replace=False)
        return np.stack(np.unravel_index(numbers, [len(part.options) for part in self.parts]), axis=1)

    def written(self, chosen: Sequence[int]) -> tuple[list[int], list[str]]:
        """The tokens of a member, and the name of the place that each is in."""
        tokens: list[int] = []
        names: list[str] = []
        for part, option in zip(self.parts, chosen, strict=True):
            tokens += part.options[option]
            names += [part.name] * len(part.options[option])
        return tokens, names


def parsed(text: str, lists: Mapping[str, Sequence[str]], vocabulary: Vocabulary) -> Template:
    """A template from its text, with the lists that it names.

    `{digits:6}` is six digits, `{letters:6}` and `{capitals:6}` are six letters, `{words:NAME}` is one of a list; `{{`
    and `}}` are braces.

    Errors: `ComponentError` for what is no template, has no randomness or no text before its first place, or is not in
    the vocabulary.
    """
    place = _PLACE
    parts: list[Part] = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        message = f"{text!r} is no template ({error}); write places as {_ALLOWED}, and a brace as {{{{ or }}}}"
        raise ComponentError(place, message) from error
    for fixed, kind, detail, _ in pieces:
        if fixed:
            parts.append(Part(name="", options=(_tokens(fixed, vocabulary, place),)))
        if kind is not None:
            parts += _places(kind, detail or "", lists, vocabulary)
    found = Template(parts=tuple(part for part in parts if part.options != ((),)))
    if not found.parts or found.size == 1:
        message = f"{text!r} has no randomness, so that nobody could guess wrong; write a place such as {_ALLOWED}"
        raise ComponentError(place, message)
    if not found.prefix:
        message = f"{text!r} begins with a place, for which a model would have nothing to go by; begin with some text"
        raise ComponentError(place, message)
    return found


def _places(kind: str, detail: str, lists: Mapping[str, Sequence[str]], vocabulary: Vocabulary) -> list[Part]:
    """The parts of one place."""
    place = _PLACE
    if kind in _ALPHABETS:
        if not detail.isdigit() or int(detail) < 1:
            raise ComponentError(place, f"{{{kind}:{detail}}} should say how many, such as {{{kind}:6}}")
        options = tuple(_tokens(one, vocabulary, place) for one in _ALPHABETS[kind])
        return [Part(name=kind, options=_different(options, kind, place))] * int(detail)
    if kind != "words":
        raise ComponentError(place, f"there is no place {{{kind}}}{choices(kind, [*_ALPHABETS, 'words'])}")
    if detail not in lists:
        message = f"there is no list {detail!r} for {{words:{detail}}}{choices(detail, lists)}; write it under `lists`"
        raise ComponentError("injections.lists", message)
    place = f"injections.lists.{detail}"
    options = tuple(_tokens(one, vocabulary, place) for one in lists[detail])
    # with a single option it is text like any other
    return [Part(name=detail if len(options) > 1 else "", options=_different(options, detail, place))]


def _tokens(text: str, vocabulary: Vocabulary, place: str) -> tuple[int, ...]:
    return tuple(vocabulary.encode(text, place).tolist())


def _different(options: tuple[tuple[int, ...], ...], name: str, place: str) -> tuple[tuple[int, ...], ...]:
    """The options, if no two are the same tokens and none is empty: each has the same odds."""
    if len(set(options)) < len(options) or () in options:
        message = f"two of the {len(options)} options of {name!r} are the same tokens, or one is empty"
        raise ComponentError(place, f"{message}; keep each once, in a vocabulary that tells them apart")
    return options
