"""Arguments of a command as the fields of one record."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

Options = TypeVar("Options")


def options(record: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """A decorator: the command takes the fields of a dataclass, and its function takes the record.

    Fields are annotated as typer's parameters are. The order of the fields is that of the help.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Words:
    ...     first: str
    ...     second: int = 2
    >>> @options(Words)
    ... def show(words: Words) -> None:
    ...     print(words.first * words.second)
    >>> show(first="a")
    aa
    >>> inspect.signature(show)
    <Signature (*, first: str, second: int = 2) -> None>
    """

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        def command(**arguments: Any) -> None:
            function(record(**arguments))

        annotations = typing.get_type_hints(record, include_extras=True)
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default,
                annotation=annotations[field.name],
            )
            for field in dataclasses.fields(record)  # type: ignore[arg-type]
        ]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__annotations__ = {**annotations, "return": None}
        command.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
        return command

    return decorate
