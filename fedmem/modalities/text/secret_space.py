"""All that a secret could have been: the randomness space of a template, its members numbered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Tokens = tuple[int, ...]
"""Token numbers in a row."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The members of a template: `prefix`, then one option of each of `positions`, chosen uniformly and independently.

    An option is a sequence of at least one token. A slot with a single option is fixed text: it is part of every
    member and of no secret. The options of one slot are all different; they may differ in length.

    Members are numbered 0 to `size` - 1, the last slot changing fastest. A member is a choice, not a text: where
    options run into each other, two members may have the same tokens.

    Guarantees:

    - `index(member(i))` is i, or the lowest number that has the same tokens;
    - `size` is exact, however large;
    - `sample` depends on the generator alone.

    Errors: `ValueError` from `index` for tokens that are no member. `IndexError` from `member_tokens` for a number that
    is not there. `AssertionError` for a space without prefix or options, or with an option twice or empty.

    >>> codes = Candidates(prefix=(7,), positions=(((0,), (1,)), ((5,),), ((2, 2), (3,))))
    >>> codes.size, codes.member_tokens(2), codes.secret(2)
    (4, (7, 1, 5, 2, 2), (False, True, False, True, True))
    >>> codes.index((7, 0, 5, 3))
    1
    """

    prefix: Tokens
    positions: tuple[tuple[Tokens, ...], ...]

    def __post_init__(self) -> None:
        assert self.prefix, "a model needs something to go by"
        for options in self.positions:
            assert options, "a slot has options"
            assert all(options), "an option has tokens"
            assert len(set(options)) == len(options), "options are different"

    @cached_property
    def size(self) -> int:
        """|R|, how many members there are; their entropy is log2 of that."""
        return math.prod(len(options) for options in self.positions)

    @property
    def max_length(self) -> int:
        """The most tokens that a member has, the prefix included."""
        return len(self.prefix) + sum(max(map(len, options)) for options in self.positions)

    def options_of(self, number: int) -> tuple[int, ...]:
        """(positions,) which option of each position member `number` has."""
        if not 0 <= number < self.size:
            raise IndexError(f"member {number} of {self.size}")
        choices = []
        for options in reversed(self.positions):
            number, option = divmod(number, len(options))
            choices.append(option)
        return tuple(reversed(choices))

    def number(self, choices: Sequence[int]) -> int:
        """The member with these options, the inverse of `choices`."""
        number = 0
        for options, option in zip(self.positions, choices, strict=True):
            assert 0 <= option < len(options)
            number = number * len(options) + option
        return number

    def member_tokens(self, number: int) -> Tokens:
        """The tokens of a member, the prefix included."""
        parts = (options[option] for options, option in zip(self.positions, self.options_of(number), strict=True))
        return self.prefix + tuple(token for part in parts for token in part)

    def secret(self, number: int) -> tuple[bool, ...]:
        """Which of its tokens are secret: those at positions with more than one option."""
        mask = [False] * len(self.prefix)
        for options, option in zip(self.positions, self.options_of(number), strict=True):
            mask += [len(options) > 1] * len(options[option])
        return tuple(mask)

    @cached_property
    def ending(self) -> Tokens:
        """The fixed text at the end of every member."""
        last = max((j for j, options in enumerate(self.positions) if len(options) > 1), default=-1)
        return tuple(token for options in self.positions[last + 1 :] for token in options[0])

    def with_prefix(self, beginning: Sequence[int]) -> Candidates | None:
        """The members that begin with these tokens, as a space of its own; None where they end within an option.

        Also None where no member begins with them, and where they may be read as the beginning in several ways. Also
        None where they end with an option that is the beginning of another.

        >>> codes = Candidates(prefix=(7,), positions=(((0,), (1,)), ((5,),), ((2, 2), (3,))))
        >>> codes.with_prefix((7, 1, 5))
        Candidates(prefix=(7, 1, 5), positions=(((2, 2), (3,)),))
        """
        tokens = tuple(int(token) for token in beginning)
        start = len(self.prefix)
        reached = {start} if tokens[:start] == self.prefix else set[int]()
        rests = [self.positions] if len(tokens) in reached else []
        for j, options in enumerate(self.positions):
            going = [(position, part) for position in reached for part in options if position < len(tokens)]
            if any(
                part[: len(tokens) - position] == tokens[position:] and position + len(part) > len(tokens)
                for position, part in going
            ):
                return None
            reached = {
                position + len(part) for position, part in going if tokens[position : position + len(part)] == part
            }
            if len(tokens) in reached:
                rests.append(self.positions[j + 1 :])
        return Candidates(prefix=tokens, positions=rests[0]) if len(rests) == 1 else None

    def index(self, tokens: Sequence[int]) -> int:
        """The lowest number of a member with exactly these tokens, the prefix included; `ending` may be left out."""
        number = self._number_of(tokens)
        if number is None:
            raise ValueError(f"{tuple(map(int, tokens))} is no member of the {self.size} candidates")
        return number

    def has(self, tokens: Sequence[int]) -> bool:
        """Whether a member has exactly these tokens, as `index` finds them."""
        return self._number_of(tokens) is not None

    def _number_of(self, tokens: Sequence[int]) -> int | None:
        sequence = tuple(int(token) for token in tokens)
        number = self._index(sequence)
        return self._index(sequence + self.ending) if number is None else number

    def _index(self, sequence: Tokens) -> int | None:
        start = len(self.prefix)
        # by the place that is reached: the lowest number so far
        reached = {start: 0} if sequence[:start] == self.prefix else {}
        for options in self.positions:
            after: dict[int, int] = {}
            for place, number in reached.items():
                for option, part in enumerate(options):
                    end = place + len(part)
                    if sequence[place:end] == part:
                        next_number = number * len(options) + option
                        after[end] = min(next_number, after.get(end, next_number))
            reached = after
        return reached.get(len(sequence))

    def sample(self, count: int, rng: np.random.Generator) -> list[int]:
        """The numbers of `count` members, each drawn uniformly, so that one may come twice."""
        choices = rng.integers([len(options) for options in self.positions], size=(count, len(self.positions)))
        return [self.number(row) for row in choices.tolist()]
