"""The errors that a user can meet; each carries what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_LINES = 20
"""Lines of one message on the command line."""

_MAX_CHARACTERS = 4000
"""The same in characters, about."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, without a full stop.

    >>> first_line(ValueError("no such name.\\nTry again"))
    'no such name'
    """
    return str(error).strip().partition("\n")[0].rstrip(".")


def shorten(text: str, max_characters: int) -> str:
    """A text of at most so many characters; of a longer one the middle is left out.

    >>> shorten("0123456789" * 3, 15)
    '0123456 … 56789'
    """
    if len(text) <= max_characters:
        return text
    end = (max_characters - 3) // 2 - 1
    return f"{text[: max_characters - 3 - end]} … {text[-end:]}"


def message_lines(messages: Sequence[str]) -> list[str]:
    """The lines of several messages, `MAX_LINES` at most: of more, the last says how many messages are left out.

    Where all together are longer than about 4000 characters, the middle of each line is left out.

    >>> message_lines(["one", "two\\n  three"])
    ['one', 'two', '  three']
    >>> message_lines([f"message {i}" for i in range(30)])[-2:]
    ['message 18', '… and 11 more']
    """
    lines = _first_lines(messages)
    max_characters = max(150, _MAX_CHARACTERS // max(1, len(lines)))
    return [shorten(line, max_characters) for line in lines] if sum(map(len, lines)) > _MAX_CHARACTERS else lines


def _first_lines(messages: Sequence[str]) -> list[str]:
    first_lines: list[str] = []
    for place, message in enumerate(messages):
        lines = message.splitlines() or ["is wrong"]
        last = place == len(messages) - 1
        if len(first_lines) + len(lines) + (not last) > MAX_LINES:
            room = MAX_LINES - 1 - len(first_lines)
            if not first_lines:
                return [*lines[:room], f"… and {len(lines) - room} more lines"]
            return [*first_lines, f"… and {len(messages) - place} more"]
        first_lines += lines
    return first_lines


class FedmemError(Exception):
    """Base of every error that fedmem raises on purpose. The command line turns it into one message."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong in a scenario: where, what, and how to mend it."""

    path: str
    message: str
    line: int | None = None
    source: str = ""

    def __str__(self) -> str:
        place = shorten(self.source, 200) + (f":{self.line}" if self.line is not None else "")
        message = shorten(self.message or "is wrong", 1000)
        return "  ".join(
            part for part in (place, f"{shorten(self.path, 200)}: {message}" if self.path else message) if part
        )


class ScenarioError(FedmemError):
    """The scenario is wrong. Holds every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[tuple[Problem, ...]], dict[str, object]]:
        """Made again from its problems, so that it can come from another process."""
        return type(self), (self.problems,), self.__dict__


class ComponentError(FedmemError):
    """A component cannot do what its fields ask on this data. `path` names the YAML key."""

    exit_code = 2

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(f"{path}: {message}")

    def __reduce__(self) -> tuple[type[ComponentError], tuple[str, str], dict[str, object]]:
        """See `ScenarioError.__reduce__`."""
        return type(self), (self.path, self.message), self.__dict__


class RunError(FedmemError):
    """A run failed: a client, a strategy or a measurement. The message names round, client and cause."""


class TargetError(RunError):
    """An update cannot be attacked: it does not fit its model or its description, or nothing could be matched."""

    exit_code = 2


class FolderError(RunError):
    """A folder that was named cannot be used: it is no finished run, or nothing can be written there."""

    exit_code = 2


class DiskError(RunError):
    """A disk is full or read-only, for this run and for all that would be written after it; what is finished stays."""


class BusyError(FolderError):
    """Another process computes the run of this folder."""
