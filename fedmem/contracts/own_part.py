"""A class or function of the user's own that is made into a component: its arguments are the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar


class OwnPart:
    """The common part of such components. Subclasses say what the class or function is called for.

    Attributes:
        _target: the class or function.
        _signature: its arguments with their defaults, for messages.
        _at: file and line of its definition, for messages.
    """

    _target: ClassVar[Callable[..., Any]]
    _signature: ClassVar[str] = ""
    _at: ClassVar[str] = ""

    def _arguments(self) -> dict[str, Any]:
        """The fields by name, as arguments; lists and mappings are copies, which their receiver may change."""
        assert is_dataclass(self)
        return {item.name: _copy(getattr(self, item.name)) for item in fields(self)}


def own_signature(cls: type) -> str:
    """The arguments of a class or function that was made into a component; empty for other classes.

    >>> own_signature(OwnPart), own_signature(int)
    ('', '')
    """
    return cls._signature if issubclass(cls, OwnPart) else ""


def own_definition(cls: type) -> str:
    """File and line where a class or function that was made into a component is defined; empty for other classes."""
    return cls._at if issubclass(cls, OwnPart) else ""


def _copy(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
