"""Contracts of watchers of a Flower strategy: their methods and their declarations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from fedmem.contracts.declarations import Declaration, declare, read_declaration
from fedmem.contracts.evidence import Transition
from fedmem.errors import ComponentError

OnError = Literal["raise", "warn"]
"""The effect of an error of a watcher: it ends the training, or it becomes a warning and ends only the watching."""


def checked_on_error(value: str) -> OnError:
    """The same value. Errors: `ValueError` if it is neither `raise` nor `warn`.

    >>> checked_on_error("warn")
    'warn'
    """
    if value in ("raise", "warn"):
        return cast(OnError, value)
    raise ValueError(f"on_error must be 'raise' or 'warn', got {value!r}")


class Watcher(Protocol):
    """Sees the transitions of the rounds that it observes: local ones before aggregation, the global one after it.

    It may declare what `WatcherDeclaration` lists.
    """

    def observes_round(self, round_number: int) -> bool: ...

    def see(self, transitions: Sequence[Transition]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class WatcherDeclaration(Declaration):
    """The declarations of a watcher, with their defaults.

    Attributes:
        begin: `begin(initial)`, which is given the initial parameters before round 1; None if it does not use them.
        on_error: The effect of its errors; with `warn` they are warnings, and it sees nothing more.
        named_clients: Clients that it names, as text; `Observed` compares them with the mapping of a user.
    """

    begin: Callable[..., Any] | None = declare(None, "a method begin(initial)")
    on_error: OnError = declare("raise", "raise or warn")
    named_clients: tuple[str, ...] = declare((), "a tuple of texts")


def watcher_declaration(watcher: Watcher) -> WatcherDeclaration:
    """The declarations of a watcher. Errors: `ComponentError` if one has another type than the record allows.

    >>> class Silent:
    ...     on_error = "warn"
    ...     def observes_round(self, round_number): return False
    ...     def see(self, transitions): ...
    >>> one = watcher_declaration(Silent())
    >>> one.begin, one.on_error
    (None, 'warn')
    """
    try:
        return read_declaration(WatcherDeclaration, watcher)
    except ComponentError as error:
        raise ComponentError("watcher", error.message) from error
