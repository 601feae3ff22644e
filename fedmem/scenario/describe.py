"""Description of a component for its users: its fields, and YAML that builds it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from fedmem.contracts.attack import AttackDeclaration
from fedmem.contracts.declarations import class_value
from fedmem.contracts.estimator import EstimatorDeclaration
from fedmem.contracts.flower_strategy_adapter import adapted_defaults, parameters, plain_parameters
from fedmem.errors import ComponentError
from fedmem.scenario import catalogue
from fedmem.scenario.installed_parts import find_installed
from fedmem.scenario.overrides import FAMILY_OF_FIELD, OF_PHASES
from fedmem.scenario.own_parts import definition_of, import_object, is_yaml
from fedmem.scenario.yaml_source import write_flow

_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of", "min_length": "at least"}


@dataclass(frozen=True, kw_only=True)
class FieldFacts:
    """One YAML field: its type and what is allowed in words, its default as YAML (empty: it must be given)."""

    name: str
    type: str
    default: str
    allowed: str
    meaning: str


def summary(family: str, kind: str) -> str:
    """The first line of the file of a kind, or of its first public class that says something.

    Nothing is imported for a shipped kind. The class of a kind that an installed package adds is imported; where that
    fails, the line says so.

    >>> summary("sampler", "everyone")[-1]
    '.'
    """
    if kind not in catalogue.kinds(family):
        return _summary_of_installed(family, kind)
    tree = ast.parse((catalogue.folder(family) / f"{kind}.py").read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    texts = [ast.get_docstring(tree), *(ast.get_docstring(node) for node in classes)]
    return next(filter(None, texts), "").partition("\n")[0]


def _summary_of_installed(family: str, kind: str) -> str:
    try:
        part = find_installed(family, kind, None)
        line = inspect.cleandoc(catalogue.load(family, kind).__doc__ or "").partition("\n")[0]
    except ComponentError as error:
        return f"cannot be used: {error.message}"
    return f"{line} ({part.package} {part.version})" if part else line


def about(family: str, kind: str) -> str:
    """The line of its file and the first paragraph of its class, in one text.

    >>> about("sampler", "everyone")
    'Full participation. All N clients take part in every round; nothing is drawn.'
    """
    paragraph = inspect.cleandoc(catalogue.load(family, kind).__doc__ or "").partition("\n\n")[0]
    return " ".join(f"{summary(family, kind)} {paragraph}".split())


def field_facts(family: str, kind: str) -> list[FieldFacts]:
    """All fields of a kind but `kind` itself; behind a mapping with fields of its own these, as `peft.r`.

    >>> [(fact.name, fact.type, fact.allowed) for fact in field_facts("sampler", "uniform")]
    [('size', 'whole number', '≥ 1')]
    """
    cls = catalogue.load(family, kind)
    if catalogue.is_flower_strategy(family, cls):
        return list(_flower_facts(cls))
    field_types, meanings = catalogue.hints(cls), catalogue.explain(cls)
    facts = []
    for item in fields(cls):
        words, allowed = _type_text(field_types[item.name])
        default = item.default if item.default_factory is MISSING else item.default_factory()
        facts.append(
            FieldFacts(
                name=item.name,
                type=words,
                default="" if default is MISSING else write_flow(catalogue.to_yaml_value(default)),
                allowed=allowed,
                meaning=meanings.get(item.name, ""),
            )
        )
        section = _section_in(field_types[item.name])
        facts += [] if section is None else _section_facts(item.name, section)
    return facts


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The class of a mapping with fields of its own that an annotation allows; None without one."""
    types_in = (annotation, *get_args(annotation))
    return next((part for part in types_in if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _section_facts(name: str, section: type[BaseModel]) -> Iterator[FieldFacts]:
    """The fields of such a mapping, under the name of the field that takes it."""
    for inner, item in section.model_fields.items():
        words, allowed = _type_text(Annotated[item.annotation, *item.metadata] if item.metadata else item.annotation)
        yield FieldFacts(
            name=f"{name}.{inner}",
            type=words,
            default="" if item.is_required() else write_flow(catalogue.to_yaml_value(item.get_default())),
            allowed=allowed,
            meaning=item.description or "",
        )


def section_texts(family: str, kind: str) -> list[tuple[str, str]]:
    """The fields of a kind that take a mapping with fields of its own, each with the docstring of that mapping.

    >>> [name for name, text in section_texts("model", "huggingface")]
    ['peft']
    """
    cls = catalogue.load(family, kind)
    if catalogue.is_flower_strategy(family, cls):
        return []
    field_types = catalogue.hints(cls)
    sections = {item.name: _section_in(field_types[item.name]) for item in fields(cls)}
    return [(name, text_of(section)) for name, section in sections.items() if section is not None]


def _flower_facts(cls: type) -> Iterator[FieldFacts]:
    """The parameters of a Flower strategy, with the defaults of its adapter where these differ from the class's."""
    (is_required, _), plain, adapted = parameters(cls), plain_parameters(cls), adapted_defaults(cls, {})
    for name, needs_value in is_required.items():
        type_name, default = plain[name]
        yield FieldFacts(
            name=name,
            type=_PLAIN_WORDS.get(type_name, "any"),
            default=str(adapted[name]) if name in adapted else "" if needs_value else _default_text(default),
            allowed="" if type_name else "not checked",
            meaning="see its class",
        )


_PLAIN_WORDS = {"int": "whole number", "float": "number", "bool": "true or false", "str": "text"}


def _default_text(default: Any) -> str:
    """A default as YAML; one that YAML cannot hold, such as a function, is named as code does."""
    return write_flow(default) if is_yaml(default) else str(default)


def origin_of(family: str, kind: str) -> str:
    """Where a component of the user's own, or a Flower strategy, is defined; empty for a kind of fedmem.

    >>> origin_of("sampler", "everyone")
    ''
    """
    target = catalogue.resolve(family, kind)
    if ":" not in target:
        return ""
    what = "Flower strategy" if catalogue.is_flower_strategy(family, catalogue.load(family, target)) else family
    place = definition_of(import_object(target))
    return f"{what} {target}" + (f", defined in {place}" if place else "")


def _precedence(family: str, kind: str) -> int:
    """The place of a kind among those that an example may hold; smaller first, of equal ones the first by name."""
    precedence: int = class_value(catalogue.load(family, kind), AttackDeclaration, "precedence")
    return precedence


def example(family: str, kind: str) -> dict[str, Any]:
    """A mapping that builds this kind: every default written out, a fitting component where one must be given.

    >>> example("sampler", "uniform")
    {'kind': 'uniform', 'size': 10}
    """
    cls = catalogue.load(family, kind)
    if catalogue.is_flower_strategy(family, cls):
        return {"kind": kind}
    field_types = catalogue.hints(cls)
    mapping: dict[str, Any] = {"kind": kind}
    for item in fields(cls):
        inner = catalogue.nested_family(cls, item.name)
        if item.default is MISSING and item.default_factory is MISSING and inner is not None:
            fitting = catalogue.kinds_that_satisfy(inner, catalogue.contracts(field_types[item.name]))
            mapping[item.name] = example(inner, min(fitting, key=partial(_precedence, inner)))
    return catalogue.dump(catalogue.build(family, mapping))


def place_of(family: str, kind: str) -> dict[str, Any]:
    """The example as a key of a scenario; of a family that only stands in others, inside the first that needs it.

    >>> place_of("sampler", "uniform")
    {'sampler': {'kind': 'uniform', 'size': 10}}
    >>> place_of("attack", "loss_threshold")
    {'estimators': [{'kind': 'membership', 'attack': {'kind': 'loss_threshold'}}]}
    """
    mapping = example(family, kind)
    for field, host in FAMILY_OF_FIELD.items():
        if host == family:
            value = {field: [mapping] if field.endswith("s") else mapping}
            if _declares(family, kind, "needs_relearning"):
                return _in_relearning(value)
            return _in_phase(value) if _needs_phase(family, kind) else value
    cls = catalogue.load(family, kind)
    for only_required in (True, False):
        for field, host in FAMILY_OF_FIELD.items():
            for other in catalogue.kinds(host):
                for name in _fields_for(cls, host, other, only_required=only_required):
                    outer = catalogue.dump(catalogue.build(host, {"kind": other, name: mapping}))
                    return {field: [outer] if field.endswith("s") else outer}
    raise AssertionError(f"no component of a scenario takes a {family} such as {kind}")


def _needs_phase(family: str, kind: str) -> bool:
    """Whether a kind is written in a phase, below `then`."""
    return _declares(family, kind, "needs_phase") or family in OF_PHASES


def _declares(family: str, kind: str, name: str) -> bool:
    """Whether a kind is an estimator that declares this need."""
    return family == "estimator" and bool(class_value(catalogue.load(family, kind), EstimatorDeclaration, name))


def _in_phase(value: dict[str, Any]) -> dict[str, Any]:
    """Keys of a phase that forgets a client, which every scenario has, as a key of a scenario."""
    return {"then": [{"rounds": 5, "forget": {"clients": [0]}, **value}]}


def _in_relearning(value: dict[str, Any]) -> dict[str, Any]:
    """Keys of a phase that learns a kind again after one that forgets it, as a key of a scenario."""
    kinds = {"kinds": ["mislabelled"]}
    return {"then": [{"rounds": 5, "forget": kinds}, {"rounds": 5, "relearn": kinds, **value}]}


def _fields_for(cls: type, host: str, kind: str, *, only_required: bool) -> Iterator[str]:
    """The fields of a kind that take a component of this class: all, or those that need one."""
    host_class = catalogue.load(host, kind)
    if catalogue.is_flower_strategy(host, host_class):
        return
    optional = {item.name for item in fields(host_class) if (item.default, item.default_factory) != (MISSING, MISSING)}
    for name, annotation in catalogue.hints(host_class).items():
        if only_required and name in optional:
            continue
        if any(catalogue.satisfies(cls, protocol) for protocol in catalogue.contracts(annotation)):
            yield name


def wrap_docstring(text: str, width: int) -> str:
    """A docstring in lines of at most this width; code and tables stay as they are.

    >>> print(wrap_docstring("- an entry of\\n  a list", 80))
    - an entry of a list
    """
    paragraphs: list[str] = []
    for paragraph in filter(None, (part.strip("\n") for part in re.split(r"\n[ \t]*\n", text))):
        # examples, tables, and sections of NumPy's style, whose entries are lines
        if re.match(r"\s*(>>>|={3})|[^\n]+\n[ \t]*-{3,}", paragraph):
            paragraphs.append(paragraph)
        else:
            paragraphs.append("\n".join(_fill_paragraph(paragraph.splitlines(), width)))
    return "\n\n".join(paragraphs)


def _fill_paragraph(lines: Sequence[str], width: int) -> Iterator[str]:
    """A paragraph; each entry of a list is one of its own, with what follows it deeper."""
    parts: list[list[str]] = []
    depth = 0
    for line in lines:
        inside = len(line) - len(line.lstrip())
        # an entry, or less or more indentation after a line that ends in a colon: something new begins
        entry = re.match(r"\s*- |    \w+: ", line) is not None
        if not parts or entry or inside < depth or (inside > depth and parts[-1][-1].endswith(":")):
            parts.append([line])
            depth = inside
        else:
            parts[-1].append(line.strip())
    for part in parts:
        start = " " * (len(part[0]) - len(part[0].lstrip()))
        hang = start + ("  " if part[0].lstrip().startswith("- ") or len(start) else "")
        yield textwrap.fill(
            " ".join(part),
            width,
            subsequent_indent=hang,
            break_long_words=False,
            break_on_hyphens=False,
        )


def text_of(cls: type) -> str:
    """The docstring of a class without its first indentation, and below it the fields that it inherits unchanged."""
    text, meanings = inspect.cleandoc(cls.__doc__ or ""), catalogue.explain(cls)
    inherited_fields = {
        name: meaning
        for base in cls.__mro__[1:]
        for name, meaning in catalogue.explain(base).items()
        if meanings[name] == meaning
    }
    lines = [f"- `{name}`: {meaning}" for name, meaning in inherited_fields.items()]
    return "\n".join([text, "", "Fields that all of its family have", "", *lines]) if lines else text


def _type_text(annotation: Any) -> tuple[str, str]:
    """Type and allowed values in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words, allowed = _type_text(arguments[0])
        bounds = [_bound(item) for item in annotation.__metadata__]
        return words, ", ".join(part for part in (allowed, *bounds) if part)
    if origin in (Union, types.UnionType):
        parts = [_type_text(argument) for argument in arguments]
        return " or ".join(part[0] for part in parts), ", ".join(part[1] for part in parts if part[1])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping", ""
    if origin is Literal:
        return "word", ", ".join(str(argument) for argument in arguments)
    if origin is tuple:
        words, allowed = _type_text(arguments[0])
        return f"list of {words}", f"each {allowed}" if allowed else ""
    if origin is not None and issubclass(origin, Mapping):
        return "mapping", ""
    protocols = catalogue.contracts(annotation)
    if protocols:
        family = catalogue.FAMILY_OF[protocols[0]]
        return f"{family} component", ", ".join(catalogue.kinds_that_satisfy(family, protocols))
    type_names = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        Any: "any",
    }
    return type_names.get(annotation, getattr(annotation, "__name__", str(annotation))), ""


def _bound(constraint: object) -> str:
    for name, sign in _BOUNDS.items():
        if hasattr(constraint, name):
            return f"{sign} {getattr(constraint, name)}" + (" long" if name == "min_length" else "")
    return ""
