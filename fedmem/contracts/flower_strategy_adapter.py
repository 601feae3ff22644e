"""Flower strategies that know nothing of fedmem, made into components."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.guards.guarding import NOT_OURS
from fedmem.wording import choices


@dataclass(frozen=True, kw_only=True)
class FlowerStrategyAdapter:
    """A Flower strategy class, of Flower or of the user, with the parameters of its constructor.

    All clients that the sampler picked train. Unless the YAML says otherwise, the parameters of Flower's own strategies
    are set accordingly, as far as the class takes them. They are `fraction_train=1`, `fraction_evaluate=0` and minimums
    that a cohort of one satisfies (0 for evaluation where nothing is evaluated).

    Fields

    - `kind`: `package.module:Class`.
    - `fields`: parameters of the class.

    Errors: `ComponentError` if the class refuses its parameters.

    >>> strategy = FlowerStrategyAdapter(kind="flwr.serverapp.strategy:FedProx", fields={"proximal_mu": 0.1})
    >>> strategy.make(cohort_size=1).min_train_nodes
    1
    """

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def message_name(self) -> str:
        """The kind, which messages name."""
        return self.kind

    def make(self, cohort_size: int) -> Any:
        """A new strategy object."""
        module, _, name = self.kind.partition(":")
        cls = getattr(importlib.import_module(module), name)
        arguments = dict(self.fields)
        try:
            return cls(**(adapted_defaults(cls, arguments) | arguments))
        except NOT_OURS:
            raise
        except BaseException as error:
            # Somebody else's class can fail in any way; whatever it is, it is its parameters that the user can mend.
            message = f"{self.kind} cannot be made from {arguments}: {type(error).__name__}: {error}"
            raise ComponentError("strategy", message) from error


def adapted_defaults(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of fedmem for the parameters that a class takes, with these values given; see the adapter.

    >>> class Mine:
    ...     def __init__(self, fraction_train: float = 0.1, mu: float = 1.0) -> None: ...
    >>> adapted_defaults(Mine, {})
    {'fraction_train': 1.0}
    """
    defaults = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": 1,
        "min_evaluate_nodes": 1 if values.get("fraction_evaluate") else 0,
        "min_available_nodes": 1,
    }
    names, others = parameters(cls)
    return {key: value for key, value in defaults.items() if others or key in names}


_PLAIN_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def plain_parameters(cls: type) -> dict[str, tuple[str, Any]]:
    """Parameter -> its type, where that is int, float, bool or str, else empty; and its default, `inspect`'s `empty`
    where it has none.

    >>> class Mine:
    ...     def __init__(self, factor: float = 1.0) -> None: ...
    >>> plain_parameters(Mine)
    {'factor': ('float', 1.0)}
    """
    found: dict[str, tuple[str, Any]] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            for item in inspect.signature(vars(base)["__init__"]).parameters.values():
                name = item.annotation if isinstance(item.annotation, str) else getattr(item.annotation, "__name__", "")
                found.setdefault(item.name, (name if name in _PLAIN_TYPES else "", item.default))
    found.pop("self", None)
    return found


def is_of_type(value: object, name: str) -> bool:
    """Whether a value has the type of a parameter; any value where the type is not known.

    >>> is_of_type("banana", "float"), is_of_type(1, "float"), is_of_type(True, "int"), is_of_type("x", "")
    (False, True, False, True)
    """
    if name not in _PLAIN_TYPES:
        return True
    return isinstance(value, _PLAIN_TYPES[name]) and (name == "bool" or not isinstance(value, bool))


def type_problems(cls: type, values: Mapping[str, Any]) -> list[Problem]:
    """The values that have another type than the signature says; a default is always allowed."""
    return [
        Problem(path=key, message=f"{values[key]!r} should be {name}, as the class says")
        for key, (name, default) in plain_parameters(cls).items()
        if key in values and values[key] != default and not is_of_type(values[key], name)
    ]


def parameters(cls: type) -> tuple[dict[str, bool], bool]:
    """Parameter -> whether it must be given; and whether the class takes others as well.

    `**kwargs` are followed to the next class that has an `__init__` of its own, where they are normally passed on.

    >>> class Base:
    ...     def __init__(self, fraction_train: float = 1.0) -> None: ...
    >>> class Mine(Base):
    ...     def __init__(self, mu: float, **kwargs: float) -> None: ...
    >>> parameters(Mine)
    ({'mu': True, 'fraction_train': False}, False)
    """
    required_by_name: dict[str, bool] = {}
    makers = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    for position, maker in enumerate(makers):
        signature = inspect.signature(maker).parameters.values()
        for item in list(signature)[1:]:
            if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY):
                # The outermost class may itself give what an inner one requires.
                required_by_name.setdefault(item.name, position == 0 and item.default is item.empty)
        if not any(item.kind is item.VAR_KEYWORD for item in signature):
            return required_by_name, False
    return required_by_name, bool(makers)


def adapt_flower_strategy(kind: str, cls: type, values: Mapping[str, Any]) -> FlowerStrategyAdapter:
    """A Flower strategy that knows nothing of fedmem, with its parameters checked against its signature.

    Errors: `ComponentError` for a class that is no strategy, `ScenarioError` for wrong parameters.
    """
    missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
    if missing:
        raise ComponentError("kind", f"{kind!r} is abstract: {missing} must be defined; use a class that defines them")
    if not callable(getattr(cls, "start", None)):
        raise ComponentError(
            "kind",
            f"{kind!r} is no Flower strategy: it has no start; derive it from one, or from "
            "flwr.serverapp.strategy:Strategy",
        )
    signature, others = parameters(cls)
    problems = [
        Problem(path=key, message=f"{kind} takes no such parameter{choices(key, signature)}")
        for key in values
        if key not in signature and not others
    ]
    problems += [
        Problem(path=key, message=f"is missing; {kind} cannot be made without it")
        for key, is_required in signature.items()
        if is_required and key not in values
    ]
    problems += type_problems(cls, values)
    if problems:
        raise ScenarioError(problems)
    return FlowerStrategyAdapter(kind=kind, fields=values)
