"""Declarations of a component, read from its attributes by a fixed table, with defaults and checks.

A component declares with plain class attributes, properties and fields; it imports nothing for this. The record of its
family (`StrategyDeclaration`, `SamplerDeclaration`, ...) is the table: its fields are the names that may be declared.
This is the only module that looks at attributes of components; all others read the record.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from types import MemberDescriptorType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from fedmem.errors import ComponentError
from fedmem.guards.guarding import NOT_OURS

D = TypeVar("D", bound="Declaration")


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The common part of all records.

    Attributes:
        given: Names that the component has, whatever their values.
        outdated: Names that a base class declares, but that a subclass with methods of its own did not declare again.
            Their values in this record are the defaults.
    """

    given: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()


def declare(default: Any, allowed: str, *, renewed: bool = False) -> Any:
    """A field of a record of declarations.

    Args:
        default: The value where a component declares nothing.
        allowed: Text for the error message: what a declared value should be.
        renewed: Whether a subclass that defines methods has to declare it again. The methods may do what the declaring
            class never did, so an inherited declaration says nothing about them.
    """
    metadata = {"allowed": allowed, "renewed": renewed}
    if isinstance(default, dict):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


def read_declaration(record: type[D], component: object) -> D:
    """The declarations of a component.

    Raises:
        ComponentError: if a value is not of the type that the record allows, or cannot be computed.

    Examples:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Pace(Declaration):
        ...     steps: int = declare(1, "a whole number", renewed=True)
        >>> class Fast:
        ...     steps = 7
        >>> class Faster(Fast):
        ...     def run(self): return 8
        >>> [read_declaration(Pace, part).steps for part in (object(), Fast(), Faster())]
        [1, 7, 1]
        >>> read_declaration(Pace, Faster()).outdated
        frozenset({'steps'})
        >>> class Slow:
        ...     steps = 0.5
        >>> read_declaration(Pace, Slow())
        Traceback (most recent call last):
        fedmem.errors.ComponentError: : Slow declares steps = 0.5, should be a whole number
    """
    values: dict[str, Any] = {}
    outdated = set()
    cls: type = type(component)
    table: type = record
    present = _names(cls) | _own_declaration(component).keys()
    for name, (adapter, meta) in _table(table).items():
        if name not in present:
            continue
        if meta["renewed"] and is_outdated(component, name):
            outdated.add(name)
        else:
            values[name] = _check_declaration(component, name, adapter, meta["allowed"])
    return record(**values, given=frozenset(values), outdated=frozenset(outdated))


def _check_declaration(component: object, name: str, adapter: TypeAdapter[Any], allowed: str) -> Any:
    """A declared value, as it is; an error if it cannot be computed or has another type."""
    cls = type(component).__name__
    try:
        value = getattr(component, name)
    except NOT_OURS:
        raise
    except BaseException as error:
        # A property of somebody else's class can fail in any way.
        raise ComponentError("", f"{cls} cannot say its {name}: {type(error).__name__}: {error}") from error
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise ComponentError("", f"{cls} declares {name} = {value!r}, should be {allowed}") from error
    return value


@cache
def _table(record: type) -> Mapping[str, tuple[TypeAdapter[Any], Mapping[str, Any]]]:
    """Name -> the type of its values, and what `declare` says of it."""
    hints = typing.get_type_hints(record)
    return {item.name: (TypeAdapter(hints[item.name]), item.metadata) for item in fields(record) if item.metadata}


@cache
def _names(cls: type) -> frozenset[str]:
    return frozenset(dir(cls)) | ({item.name for item in fields(cls)} if is_dataclass(cls) else frozenset())


def _own_declaration(component: object) -> Mapping[str, Any]:
    """The attributes of the instance itself; none where its class has slots."""
    return vars(component) if hasattr(component, "__dict__") else {}


def is_outdated(component: object, name: str) -> bool:
    """Whether a subclass of the class that declares `name` defines methods, and does not declare it again.

    >>> class Declares:
    ...     reads = ()
    ...     def cohort(self): return [0]
    >>> class Inherits(Declares): ...
    >>> class Overrides(Declares):
    ...     def cohort(self): return secrets()
    >>> is_outdated(Declares(), "reads"), is_outdated(Inherits(), "reads"), is_outdated(Overrides(), "reads")
    (False, False, True)
    """
    if name in _own_declaration(component):
        return False
    for cls in type(component).__mro__:
        if name in vars(cls):
            return False
        if any(_is_behaviour(value) for key, value in vars(cls).items() if not key.startswith("__")):
            return True
    return False


def _is_behaviour(value: Any) -> bool:
    """Whether a member of a class does something: whatever can be called, and descriptors that are no slots."""
    return callable(value) or (hasattr(type(value), "__get__") and not isinstance(value, MemberDescriptorType))


def class_value(cls: type, record: type, name: str) -> Any:
    """The declaration `name` of a class, before a component is made; the default where that is a property."""
    value = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    adapter, _ = _table(record)[name]
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError:
        return next(item.default for item in fields(record) if item.name == name)
    return value


def names_of(record: type) -> frozenset[str]:
    """The names that a component may declare."""
    return frozenset(_table(record))
