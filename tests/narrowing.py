"""What a test knows of a value beyond its declared type, checked when the test runs."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """The value, which is not None."""
    assert value is not None
    return value


def instance(value: object, cls: type[Value]) -> Value:
    """The value, which is of this class."""
    assert isinstance(value, cls), f"{type(value).__name__} is no {cls.__name__}"
    return value
