"""From a kind to a class: the folder of a family is its registry.

`partition: {kind: dirichlet}` is the one public class of `fedmem/partitions/dirichlet.py`. Listing kinds imports
nothing, loading one imports one module. `kind: package.module:Class` takes somebody else's component, and runs that
module's code: only run scenarios that you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ConfigDict, Strict, ValidationError, create_model
from pydantic_core import PydanticCustomError, core_schema

from fedmem.contracts import strategy
from fedmem.contracts.families import FAMILIES, FORMER_KINDS, kind_of
from fedmem.contracts.flower_strategy_adapter import FlowerStrategyAdapter, adapt_flower_strategy, parameters
from fedmem.contracts.members import PROTOCOLS, check_declarations, member_names, required_members
from fedmem.contracts.own_part import own_definition, own_signature
from fedmem.errors import ComponentError, FedmemError, Problem, ScenarioError
from fedmem.guards.guarding import NOT_OURS, cause_of, line_of
from fedmem.scenario import other_family
from fedmem.scenario.installed_parts import find_installed, installed_kinds
from fedmem.scenario.own_parts import example_text, not_a_dataclass, own_class, wrong_arguments
from fedmem.scenario.validation import problems_of
from fedmem.wording import choices

FAMILY_OF: Mapping[type, str] = {protocol: family for family, group in PROTOCOLS.items() for protocol in group}
"""Contract -> the family that it belongs to."""

_NAMES = {name: value for protocol in FAMILY_OF for name, value in vars(sys.modules[protocol.__module__]).items()}
"""The names that annotations of components may use without an import."""


LARGEST = 10**8
"""The largest whole number in a component: far beyond what any can work with, and still safe to multiply and to count
with. A slip of the finger becomes a message instead of a program that never ends."""


class Component:
    """Marks a field as taking a component: a mapping with `kind`, or an instance. For pydantic."""

    is_optional: bool = False

    def __init__(self, family: str, protocol: type | None = None) -> None:
        self.family = family
        self.protocols = PROTOCOLS[family] if protocol is None else (protocol,)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> Any:
        try:
            if any(satisfies(type(value), protocol) for protocol in self.protocols):
                check_declarations(self.family, value)
                return value
            return build(self.family, value, protocols=self.protocols)
        except ScenarioError as error:
            raise PydanticCustomError("component", "wrong component", {"problems": error.problems}) from error
        except ComponentError as error:
            problems = [Problem(path=error.path, message=error.message)]
            raise PydanticCustomError("component", "wrong component", {"problems": problems}) from error


def kinds(family: str) -> tuple[str, ...]:
    """The shipped kinds of a family, sorted: the files of its folder that do not start with an underscore.

    >>> "dirichlet" in kinds("partition")
    True
    """
    if family not in FAMILIES:
        raise ScenarioError([Problem(path="", message=f"unknown family {family!r}{choices(family, FAMILIES)}")])
    return tuple(sorted(file.stem for file in folder(family).glob("*.py") if not file.stem.startswith("_")))


def folder(family: str) -> Path:
    """The folder that holds the files of a family."""
    spec = importlib.util.find_spec(FAMILIES[family])
    if spec is None or not spec.submodule_search_locations:
        raise FedmemError(f"the folder of {FAMILIES[family]} is missing; install fedmem again")
    return Path(spec.submodule_search_locations[0])


def all_kinds(family: str) -> tuple[str, ...]:
    """The shipped kinds and those that installed packages add, sorted together."""
    shipped_kinds = kinds(family)
    return tuple(sorted({*shipped_kinds, *installed_kinds(family, shipped_kinds)}))


def resolve(family: str, kind: str) -> str:
    """The kind itself, or `package.module:Class` for a name that an installed package registers.

    Errors: `ComponentError` where two things have this name.

    >>> resolve("sampler", "uniform")
    'uniform'
    """
    file = f"{FAMILIES[family].replace('.', '/')}/{kind}.py" if kind in kinds(family) else None
    part = None if ":" in kind else find_installed(family, kind, file)
    return kind if part is None else part.target


def load(family: str, kind: str) -> type:
    """The class of a kind; imports its module and no other. `ComponentError` with choices where there is none."""
    if ":" not in kind and kind not in kinds(family):
        part = find_installed(family, kind, None)
        if part is not None:
            try:
                return load(family, part.target)
            except ComponentError as error:
                raise ComponentError(error.path, f"{kind!r} is {part}: {error.message}") from error
    if ":" in kind:
        cls = own_class(family, kind)
        if not is_dataclass(cls) and not is_flower_strategy(family, cls):
            raise not_a_dataclass(family, kind, cls)
        return cls
    kind_names = kinds(family)
    if (family, kind) in FORMER_KINDS:
        raise ComponentError("kind", f"there is no kind {kind!r} any more; {FORMER_KINDS[family, kind]}")
    if kind not in kind_names:
        raise ComponentError("kind", other_family.unknown_kind_text(family, kind, all_kinds(family)))
    module = importlib.import_module(f"{FAMILIES[family]}.{kind}")
    public = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(public) == 1, f"{module.__name__} must define exactly one public class, not {public}"
    return public[0]


def hints(cls: type) -> dict[str, Any]:
    """The resolved annotations of a component; names of `fedmem.contracts` need no import in its file."""
    try:
        return typing.get_type_hints(cls, localns={**_NAMES, **vars(sys.modules[cls.__module__])}, include_extras=True)
    except NameError as error:
        message = f"an annotation of {cls.__name__} cannot be resolved ({error}); import it outside TYPE_CHECKING"
        raise ComponentError("kind", message) from error


def nested_family(cls: type, name: str) -> str | None:
    """The family of the component that this field takes, if it takes one."""
    protocols = contracts(hints(cls).get(name))
    return FAMILY_OF[protocols[0]] if protocols else None


def contracts(annotation: Any) -> tuple[type, ...]:
    """The contracts of `fedmem.contracts` that an annotation mentions, also inside tuples and unions."""
    if isinstance(annotation, type) and annotation in FAMILY_OF:
        return (annotation,)
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    return tuple(contract for argument in arguments for contract in contracts(argument))


def kinds_that_satisfy(family: str, protocols: Sequence[type]) -> list[str]:
    """The kinds of a family whose classes satisfy one of these contracts; imports all of the family."""
    return [kind for kind in kinds(family) if any(satisfies(load(family, kind), p) for p in protocols)]


def field_names(family: str, kind: str) -> tuple[str, ...] | None:
    """The YAML fields of a kind, without `kind`; None where it takes any."""
    cls = load(family, kind)
    if is_flower_strategy(family, cls):
        names, others = parameters(cls)
        return None if others else tuple(names)
    return tuple(item.name for item in fields(cls))


def satisfies(cls: type, protocol: type) -> bool:
    """Whether a class has every member that a contract asks for; fields without a default count."""
    return required_members(protocol) <= member_names(cls)


@cache
def fields_model(cls: type) -> type[BaseModel]:
    """A pydantic model of the fields of a component: unknown keys are refused, `Annotated` bounds are checked.

    Numbers are not made from text and whole numbers not from fractions. A field typed by a contract of
    `fedmem.contracts`, also inside a tuple or with None, takes a nested component.
    """
    field_types = hints(cls)
    definitions: dict[str, Any] = {
        item.name: (_strict_annotation(field_types[item.name]), _default(item)) for item in fields(cls)
    }
    config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    return create_model(cls.__name__, __config__=config, **definitions)


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return ... if item.default_factory is MISSING else item.default_factory()


def _strict_annotation(annotation: Any) -> Any:
    """The annotation with strict numbers and nested components."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and annotation in FAMILY_OF:
        return Annotated[Any, Component(FAMILY_OF[annotation], annotation)]
    if annotation is int:
        return Annotated[int, Strict(), annotated_types.Le(LARGEST)]
    if annotation in (float, bool, str):
        return Annotated[annotation, Strict()]
    if origin is Annotated:
        return Annotated[(_strict_annotation(arguments[0]), *annotation.__metadata__)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_strict_annotation(argument) for argument in arguments)]  # noqa: UP007
    if origin is tuple:
        return tuple[tuple(_strict_annotation(argument) for argument in arguments)]  # type: ignore[misc]
    if origin in (list, dict, Sequence, Mapping):
        return origin[tuple(_strict_annotation(argument) for argument in arguments)]
    return annotation


def build(family: str, mapping: object, *, protocols: Sequence[type] | None = None) -> Any:
    """The component that a YAML mapping describes; `ScenarioError` holds all its problems, paths from here.

    >>> build("partition", {"kind": "dirichlet", "alpha": 0.1}).alpha
    0.1
    """
    if not isinstance(mapping, Mapping):
        message = other_family.mapping_text(family, protocols or PROTOCOLS[family], mapping)
        raise ScenarioError([Problem(path="", message=message + other_family.other_family_text(family, str(mapping)))])
    kind = mapping.get("kind")
    if not isinstance(kind, str):
        message = "is missing" if kind is None else f"should be text, got {kind!r}"
        raise ScenarioError([Problem(path="kind", message=f"{message}{choices(kind, kinds(family))}")])
    values = {key: value for key, value in mapping.items() if key != "kind"}
    try:
        target = resolve(family, kind)
        cls, kind = load(family, kind), target
        if is_flower_strategy(family, cls):
            return adapt_flower_strategy(kind, cls, values)
        _of_contract(family, kind, cls, protocols or PROTOCOLS[family])
        field_values = fields_model(cls).model_validate(values)
        component = cls(**{name: getattr(field_values, name) for name in field_values.model_fields_set})
        check_declarations(family, component)
        return component
    except ValidationError as error:
        problems = problems_of(error, values, fields_model(cls), _remedies(cls), more=("kind",))
        raise ScenarioError([_with_signature(problem, cls, values) for problem in problems]) from error
    except ComponentError as error:
        # A component names the key from the root ("partition.alpha") or from itself ("alpha").
        raise ScenarioError([Problem(path=error.path.removeprefix(f"{family}."), message=error.message)]) from error
    except (FedmemError, *NOT_OURS):
        raise
    except ValueError as error:
        raise ScenarioError([Problem(path="", message=str(error))]) from error
    except BaseException as error:
        # Somebody else's class can fail in any way when it is made.
        at = line_of(error)
        message = f"{kind} cannot be made: {cause_of(error)}{f' ({at})' if at else ''}"
        raise ScenarioError([Problem(path="", message=message)]) from error


def _with_signature(problem: Problem, cls: type, values: Mapping[str, Any]) -> Problem:
    """With the arguments of a class or function of the user's own, where one is unknown or missing."""
    problem = replace(problem, message=other_family.with_field_hint(problem, explain(cls)))
    unknown_or_missing = (problem.path in values) != (problem.path in fields_model(cls).model_fields)
    if not unknown_or_missing or not own_signature(cls):
        return problem
    at = own_definition(cls)
    return replace(problem, message=f"{problem.message}; {own_signature(cls)}{f' ({at})' if at else ''}")


def is_flower_strategy(family: str, cls: type) -> bool:
    """Whether this is a Flower strategy that knows nothing of fedmem."""
    return family == "strategy" and not satisfies(cls, strategy.StrategyMaker)


def _of_contract(family: str, kind: str, cls: type, protocols: Sequence[type]) -> None:
    fitting = [protocol for protocol in protocols if satisfies(cls, protocol)]
    if fitting:
        wrong = wrong_arguments(cls, fitting[0]) if ":" in kind else None
        if wrong:
            raise ComponentError("kind", f"{kind!r} is no {other_family.contract_text(fitting[0])}: its {wrong}")
        return
    contract_names = " or ".join(map(other_family.contract_text, protocols))
    lacking: list[set[str]] = sorted(
        (required_members(protocol) - member_names(cls) for protocol in protocols), key=len
    )
    missing = ", ".join(sorted(lacking[0]))
    raise ComponentError(
        "kind",
        f"{kind!r} is no {contract_names}, for it has no "
        f"{missing}{choices(kind, kinds_that_satisfy(family, protocols))}"
        + (f"; {example_text(family)}" if ":" in kind else ""),
    )


IDENTITY_NEUTRAL = "identity_neutral"
"""Mark of a field, `Annotated[int, "identity_neutral"]`: at its default it is no part of the id of a scenario.

For a field that was added later and that changes no result at its default, so that older runs keep their ids.
"""


def dump(component: Any, *, for_id: bool = False) -> dict[str, Any]:
    """The mapping that builds this component, every default written out.

    With `for_id`, fields that are marked `IDENTITY_NEUTRAL` are left out at their defaults.

    >>> dump(build("sampler", {"kind": "uniform", "size": 3}))
    {'kind': 'uniform', 'size': 3}
    """
    if isinstance(component, FlowerStrategyAdapter):
        return {"kind": component.kind, **component.fields}
    values = {item.name: getattr(component, item.name) for item in fields(component)}
    if for_id:
        cls: type = type(component)
        values = without_neutral(values, fields_model(cls))
    return {"kind": kind_of(component)} | {name: to_yaml_value(value, for_id=for_id) for name, value in values.items()}


def without_neutral(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The values without those at the default of a field that is marked `IDENTITY_NEUTRAL`."""
    marked = {name: item.default for name, item in model.model_fields.items() if IDENTITY_NEUTRAL in item.metadata}
    return {name: value for name, value in values.items() if name not in marked or value != marked[name]}


def to_yaml_value(value: Any, *, for_id: bool = False) -> Any:
    """The YAML value of a field; `for_id` as in `dump`."""
    if is_dataclass(value):
        return dump(value, for_id=for_id)
    if isinstance(value, BaseModel):
        return to_yaml_value(value.model_dump(), for_id=for_id)
    if isinstance(value, (tuple, list)):
        return [to_yaml_value(item, for_id=for_id) for item in value]
    if isinstance(value, Mapping):
        return {key: to_yaml_value(item, for_id=for_id) for key, item in value.items()}
    return str(value) if isinstance(value, PurePath) else value


def _remedies(cls: type) -> dict[str, str]:
    """Field -> what to give where it is missing; a field that takes a component also lists the kinds."""
    texts = explain(cls)
    for item in fields(cls):
        protocols = contracts(hints(cls)[item.name])
        if protocols and item.default is MISSING and item.default_factory is MISSING:
            family = FAMILY_OF[protocols[0]]
            kind_names = kinds_that_satisfy(family, protocols)
            if kind_names:
                example = (
                    f"{item.name}: {{kind: {other_family.headline(family, kind_names)}}} ({', '.join(kind_names)})"
                )
                texts[item.name] = "; ".join(filter(None, (example, texts.get(item.name, "").rstrip("."))))
    return texts


def explain(cls: type) -> dict[str, str]:
    """Field -> its one-line explanation, from `Fields` in the docstrings of the class and of what it inherits from.

    >>> explain(load("sampler", "uniform"))["size"]
    'clients in every cohort, K.'
    """
    return {name: text for base in reversed(cls.__mro__) for name, text in _field_texts(base.__doc__ or "").items()}


def _field_texts(docstring: str) -> dict[str, str]:
    """The texts of fields under `Fields` in one docstring."""
    texts: dict[str, str] = {}
    lines = inspect.cleandoc(docstring).splitlines()
    start = next((i for i, line in enumerate(lines) if line in ("Fields", "Fields:")), len(lines))
    for line in filter(str.strip, lines[start + 1 :]):
        entry = re.match(r"(?:- `(\w+)`|    (\w+)): (.*)", line)
        if entry:
            texts[entry[1] or entry[2]] = entry[3].strip()
        elif texts and line.startswith("  "):
            texts[list(texts)[-1]] += f" {line.strip()}"
        else:
            break
    return texts
