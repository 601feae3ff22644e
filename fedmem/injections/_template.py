"""Texts with places to fill in: what a secret looks like, and all that it could have been."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.errors import ComponentError
from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.vocabulary import Vocabulary
from fedmem.wording import choices

_ALPHABETS: Mapping[str, str] = {
    "digits": string.digits,
    "letters": string.ascii_lowercase,
    "capitals": string.ascii_uppercase,
}
_PLACE = "injections.template"
_ALLOWED = "{digits:6}, {letters:6}, {capitals:6}, or {words:NAME} with NAME among `lists`"
_NUMBERED = 1 << 40
"""Up to so many members are drawn by number; of more, the same one hardly ever comes twice."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """All members of a template, and `names` (fields,): the place of each field, empty for text that is the same."""

    space: Candidates
    names: tuple[str, ...]

    def distinct_members(self, count: int, rng: np.random.Generator) -> list[int]:
        """`count` different members by number. Errors: `ComponentError` if none would be left."""
        if count >= self.space.size:
            raise ComponentError(
                _PLACE,
                f"{count} different secrets are wanted, but the template has {self.space.size} members, of which some "
                "must be left to compare with. Give it more places, or lower per_client or clients",
            )
        if self.space.size <= _NUMBERED:
            return [int(number) for number in rng.choice(self.space.size, size=count, replace=False)]
        numbers = self.space.sample(count, rng)
        while len(set(numbers)) < count:
            numbers = self.space.sample(count, rng)
        return numbers

    def field_mask(self, number: int, name: str) -> list[bool]:
        """Which tokens of a member are in the place of this name."""
        mask = [False] * len(self.space.prefix)
        for field, options, option in zip(self.names, self.space.positions, self.space.options_of(number), strict=True):
            mask += [field == name] * len(options[option])
        return mask


def parse_template(text: str, lists: Mapping[str, Sequence[str]], vocabulary: Vocabulary) -> Template:
    """A template from its text, with the lists that it names.

    `{digits:6}` is six digits, `{letters:6}` and `{capitals:6}` are six letters, `{words:NAME}` is one of a list; `{{`
    and `}}` are braces.

    Errors: `ComponentError` for what is no template, has no randomness or no text before its first place, or is not in
    the vocabulary.
    """
    if not vocabulary.joins:
        raise ComponentError(
            _PLACE,
            "the tokenizer of the data set puts a space before each text, so that places would have spaces between "
            "them. Use a byte-level tokenizer, such as that of GPT-2, or `tokens: characters`",
        )
    fields: list[tuple[str, tuple[Tokens, ...]]] = []
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        message = f"{text!r} is no template ({error}); write places as {_ALLOWED}, and a brace as {{{{ or }}}}"
        raise ComponentError(_PLACE, message) from error
    for fixed, kind, detail, _ in pieces:
        fixed_tokens = _tokens(fixed, vocabulary, _PLACE)
        fields += [("", (fixed_tokens,))] if fixed_tokens else []
        fields += [] if kind is None else _places(kind, detail or "", lists, vocabulary)
    if all(len(options) == 1 for _, options in fields):
        message = f"{text!r} has no randomness, so that nobody could guess wrong; write a place such as {_ALLOWED}"
        raise ComponentError(_PLACE, message)
    if fields[0][0]:
        message = f"{text!r} begins with a place, for which a model would have nothing to go by; begin with some text"
        raise ComponentError(_PLACE, message)
    ((_, (prefix,)), *rest) = fields
    names, options = zip(*rest, strict=True)
    return Template(space=Candidates(prefix=prefix, positions=options), names=names)


def _places(
    kind: str, detail: str, lists: Mapping[str, Sequence[str]], vocabulary: Vocabulary
) -> list[tuple[str, tuple[Tokens, ...]]]:
    """The fields of one place, each with its name."""
    if kind in _ALPHABETS:
        if not detail.isdigit() or int(detail) < 1:
            raise ComponentError(_PLACE, f"{{{kind}:{detail}}} should say how many, such as {{{kind}:6}}")
        options = tuple(_tokens(option, vocabulary, _PLACE) for option in _ALPHABETS[kind])
        return [(kind, _different(options, kind, _PLACE))] * int(detail)
    if kind != "words":
        raise ComponentError(_PLACE, f"there is no place {{{kind}}}{choices(kind, [*_ALPHABETS, 'words'])}")
    if detail not in lists:
        message = f"there is no list {detail!r} for {{words:{detail}}}{choices(detail, lists)}; write it under `lists`"
        raise ComponentError("injections.lists", message)
    place = f"injections.lists.{detail}"
    options = tuple(_tokens(option, vocabulary, place) for option in lists[detail])
    if not options:
        raise ComponentError(place, "the list is empty; write what it may say")
    # with a single option it is text like any other
    return [(detail if len(options) > 1 else "", _different(options, detail, place))]


def _tokens(text: str, vocabulary: Vocabulary, place: str) -> Tokens:
    return tuple(vocabulary.encode(text, place).tolist())


def _different(options: tuple[Tokens, ...], name: str, place: str) -> tuple[Tokens, ...]:
    """The options, if no two are the same tokens and none is empty: each has the same odds."""
    if len(set(options)) < len(options) or () in options:
        message = f"two of the {len(options)} options of {name!r} are the same tokens, or one is empty"
        raise ComponentError(place, f"{message}; keep each once, in a vocabulary that tells them apart")
    return options
