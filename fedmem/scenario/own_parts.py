"""Parts of the user's own: imported from `package.module:name`, and plain classes and functions made into components.

A plain `nn.Module` class, or a function that returns a module, is a model. A plain function, or a class with the method
`load`, is a data set. Their arguments become fields: types come from annotations, defaults are respected, and an
argument without annotation takes any plain YAML value.
"""

from __future__ import annotations

import importlib
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pydantic

from fedmem.contracts.data import DatasetLoader
from fedmem.contracts.declarations import names_of
from fedmem.contracts.members import DECLARATIONS, PROTOCOLS, required_members
from fedmem.errors import ComponentError
from fedmem.guards.guarding import NOT_OURS, cause_of, line_of
from fedmem.guards.places import shorten_path
from fedmem.wording import choices

PAGE = "docs/your-own-parts.md"
"""Where each family has an example."""


def import_object(kind: str) -> Any:
    """The class or function that `package.module:name` names; the current folder is searched last."""
    name, _, attribute = kind.partition(":")
    is_file = name.endswith(".py") or "/" in name
    if is_file or not all(part.isidentifier() for part in (*name.split("."), attribute)):
        remedy = "; write the module without .py and with dots for folders, such as my_model:Net" if is_file else ""
        raise ComponentError("kind", f"{kind!r} is no package.module:Class{remedy}")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        value = getattr(importlib.import_module(name), attribute, None)
    except NOT_OURS:
        raise
    except BaseException as error:
        # Somebody else's module can fail in any way; whatever it is, it is what the user has to mend.
        at = line_of(error)
        message = f"importing {name!r} failed: {cause_of(error)}{f' ({at})' if at else ''}"
        absent = isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0])
        remedy = "; is it installed, or in this folder?" if absent else ""
        raise ComponentError("kind", message + remedy) from error
    if not callable(value):
        # Its own classes and functions and those of its parts; what it imported from elsewhere is no choice.
        public = [
            key
            for key, value in vars(sys.modules[name]).items()
            if isinstance(value, type | types.FunctionType)
            and key[0] != "_"
            and f"{value.__module__}.".startswith(f"{name}.")
        ]
        choice_text = choices(attribute, public) if public else "; it defines none"
        raise ComponentError("kind", f"module {name!r} has no class {attribute!r}{choice_text}")
    return value


def own_class(family: str, kind: str) -> type:
    """The class of a component of the user's own; a plain model or loader is made into one.

    Errors: `ComponentError` for what is neither a component nor can be made into one.
    """
    value = import_object(kind)
    if _can_adapt(family, value):
        return _adapt(family, kind, value)
    if not isinstance(value, type):
        raise ComponentError(
            "kind",
            f"{kind!r} is {_what(value)}, but a {family} of your own is a class{_definition_text(value)}; "
            f"{example_text(family)}",
        )
    return value


def not_a_dataclass(family: str, kind: str, cls: type) -> ComponentError:
    """The error for a class that is neither a frozen dataclass nor anything that can be made into one."""
    also = {"model": ", or be a torch.nn.Module", "dataset": ", or have the method load"}.get(family, "")
    return ComponentError(
        "kind",
        f"{kind!r} must be a frozen, keyword-only dataclass{also}{_definition_text(cls)}. Write "
        f"@dataclass(frozen=True, kw_only=True) above class {cls.__name__}, with its fields in the body, such as "
        f"`share: float = 0.5`, in place of __init__; {example_text(family)}",
    )


def example_text(family: str) -> str:
    """The members that the contracts of a family require, and where an example is.

    >>> example_text("sampler")
    'a Sampler has cohort(round_number, history, rng); see the example in docs/your-own-parts.md'
    """
    parts = []
    for protocol in PROTOCOLS[family]:
        members = [_member_text(protocol, name) for name in sorted(required_members(protocol))]
        article = "an" if protocol.__name__[0] in "AEIOU" else "a"
        parts.append(f"{article} {protocol.__name__} has {', '.join(members)}")
    return f"{', or '.join(parts)}; see the example in {PAGE}"


def wrong_arguments(cls: type, protocol: type) -> str | None:
    """Which method of a class cannot take the arguments of its contract; None where all can.

    >>> from fedmem.contracts.sampler import Sampler
    >>> class Mine:
    ...     def cohort(self, history): ...
    >>> wrong_arguments(Mine, Sampler)  # doctest: +ELLIPSIS
    'cohort(history) should take (round_number, history, rng)...'
    """
    for name in sorted(required_members(protocol)):
        wanted, method = getattr(protocol, name, None), inspect.getattr_static(cls, name, None)
        if not inspect.isfunction(wanted) or not inspect.isfunction(method):
            continue
        arguments = list(inspect.signature(wanted).parameters)
        try:
            inspect.signature(method).bind(*arguments)
        except TypeError:
            own = ", ".join(list(inspect.signature(method).parameters)[1:])
            at = _definition_text(method)
            return f"{name}({own}) should take ({', '.join(arguments[1:])}){at}"
    return None


def _member_text(protocol: type, name: str) -> str:
    """A member as it is written: a method with its arguments, or an attribute."""
    value = getattr(protocol, name, None)
    if not inspect.isfunction(value):
        return name
    return f"{name}({', '.join(list(inspect.signature(value).parameters)[1:])})"


def _can_adapt(family: str, value: Any) -> bool:
    """Whether this is a plain class or function that a component of the family can be made from."""
    if family == "model":
        return _is_module_class(value) if isinstance(value, type) else True
    if family == "dataset":
        return (
            required_members(DatasetLoader) <= set(dir(value)) and not is_dataclass(value)
            if isinstance(value, type)
            else True
        )
    return False


def _is_module_class(value: type) -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and issubclass(value, torch.nn.Module)


@dataclass(frozen=True, kw_only=True)
class _Argument:
    """An argument of a class or function: its type, Any where it has none, and its default."""

    name: str
    annotation: Any
    default: Any

    def text(self, filled: bool) -> str:
        """As a message writes it."""
        kind = "" if self.annotation is Any else f": {_annotation_text(self.annotation)}"
        if filled or self._is_required:
            return f"{self.name}{kind} ({'from the data' if filled else 'must be given'})"
        return f"{self.name}{kind} = {self.default!r}" if is_yaml(self.default) else f"{self.name} (set in the code)"

    @property
    def _is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


@cache
def _adapt(family: str, kind: str, target: Any) -> type:
    """A frozen dataclass whose fields are the arguments of the target."""
    from fedmem.datasets._own import OwnData
    from fedmem.models._own import FROM_DATA, OwnModel

    base: type = OwnModel if family == "model" else OwnData
    filled = FROM_DATA if family == "model" else ()
    arguments = [item for item in _arguments(kind, target) if family != "dataset" or item.name != "rng"]
    reserved = {"kind", *(name for name in dir(base) if name[0] != "_")}
    definitions: list[Any] = []
    for item in arguments:
        if item.name in reserved or item.name[0] == "_":
            message = f"the argument {item.name!r} of {kind} cannot be a field{_definition_text(target)}; rename it"
            raise ComponentError("kind", message)
        if item.name in filled:
            definitions.append((item.name, item.annotation | None if item.annotation is not Any else Any, None))
        elif item.default is inspect.Parameter.empty:
            definitions.append((item.name, item.annotation))
        elif is_yaml(item.default):
            definitions.append((item.name, item.annotation, _default_field(item.default)))
        # other defaults, such as a class, are left to the target
    module, name = _place_of(kind, target)
    signature = ", ".join(item.text(item.name in filled) for item in arguments)
    doc = target.__doc__ if not isinstance(target, type) else vars(target).get("__doc__")
    namespace = {
        "__doc__": doc or f"{kind}{_definition_text(target)}.",
        "__hash__": lambda self: hash(repr(self)),
        "__module__": module,
        "__qualname__": name,
        "_target": staticmethod(target),
        "_signature": f"{kind} takes {signature or 'no arguments'}",
        "_at": definition_of(target),
        **_declarations_in(family, target),
    }
    return make_dataclass(name, definitions, bases=(base,), namespace=namespace, frozen=True, kw_only=True)


def _declarations_in(family: str, target: Any) -> dict[str, Any]:
    """The declarations of the class itself for its family, such as `stackable = True`."""
    names = {"stackable", *names_of(DECLARATIONS[family])} if family == "model" else names_of(DECLARATIONS[family])
    values = {name: inspect.getattr_static(target, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _arguments(kind: str, target: Any) -> list[_Argument]:
    """The named arguments of a class or function."""
    function: Any = target
    if isinstance(target, type):
        function = next(vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base))
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise ComponentError(
            "kind", f"the arguments of {kind!r} cannot be read: {error}; wrap it in a function"
        ) from error
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # a name that is imported for type checkers alone
        hints = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        _Argument(name=item.name, annotation=_checkable(hints.get(item.name, Any)), default=item.default)
        for item in signature.parameters.values()
        if item.kind in named
    ]


def _checkable(annotation: Any) -> Any:
    """The annotation, or Any where no YAML value can be checked against it."""
    try:
        pydantic.TypeAdapter(annotation)
    except Exception:  # whatever pydantic makes of a type of the user's
        return Any
    return annotation


def is_yaml(value: Any) -> bool:
    """Whether a default can be written in YAML."""
    if isinstance(value, float):
        return math.isfinite(value)
    if value is None or isinstance(value, bool | int | str | PurePath):
        return True
    if isinstance(value, list | tuple):
        return all(map(is_yaml, value))
    return isinstance(value, Mapping) and all(isinstance(key, str) and is_yaml(item) for key, item in value.items())


def _default_field(value: Any) -> Any:
    return field(default_factory=lambda: value) if isinstance(value, list | Mapping) else field(default=value)


def _place_of(kind: str, target: Any) -> tuple[str, str]:
    """Module and name under which the target is imported again: where it is defined, if it is there under its name."""
    if isinstance(target, type | types.FunctionType):
        module, name = target.__module__, target.__qualname__
        if module in sys.modules and vars(sys.modules[module]).get(name) is target:
            return module, name
    module, _, name = kind.partition(":")
    return module, name


def definition_of(target: Any) -> str:
    """File and line of a class or function; empty where they are not known."""
    function = inspect.unwrap(target) if callable(target) else target
    if isinstance(function, types.FunctionType):
        return f"{shorten_path(function.__code__.co_filename)}:{function.__code__.co_firstlineno}"
    try:
        _, line = inspect.getsourcelines(target)
        return f"{shorten_path(inspect.getfile(target))}:{line}"
    except (OSError, TypeError):
        return ""


def _definition_text(target: Any) -> str:
    at = definition_of(target)
    return f" ({at})" if at else ""


def _what(value: Callable[..., Any]) -> str:
    return "a function" if isinstance(value, types.FunctionType) else f"of type {type(value).__name__}"


def _annotation_text(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
