"""The JSON Schema of a scenario, from which editors complete keys and kinds, explain them and mark mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from fedmem.contracts.members import PROTOCOLS
from fedmem.errors import ComponentError
from fedmem.scenario import catalogue
from fedmem.scenario.describe import about
from fedmem.scenario.installed_parts import installed_kinds
from fedmem.scenario.scenario import Scenario

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_FOREIGN = {
    "type": "object",
    "properties": {
        "kind": {
            "type": "string",
            "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
            "description": "A class of your own, package.module:Class.",
        }
    },
    "required": ["kind"],
}
"""A class from outside fedmem, whose fields are not known here."""

_ASKED = "component"
"""Marks the place of a component until its definition is known."""


def scenario_schema() -> dict[str, Any]:
    """The schema (draft 2020-12): every key of a scenario, every kind of every family with its fields.

    fedmem also refuses whatever it refuses. The converse does not hold: what lies between two fields, or in the data,
    only `fedmem check` can decide. A component is one alternative for each kind, chosen by `kind`, and the free form
    `package.module:Class`, whose fields are not known here.

    >>> schema = scenario_schema()
    >>> schema["then"]["required"]
    ['rounds', 'clients', 'dataset', 'model']
    >>> schema["$defs"]["sampler.uniform"]["properties"]["size"]["minimum"]
    1
    """
    definitions = _Definitions()
    properties = {}
    for name, item in Scenario.model_fields.items():
        annotation: Any = Annotated[item.annotation, *item.metadata] if item.metadata else item.annotation
        property_schema = definitions.of(annotation) | {"description": _sentence(item.description)}
        if not item.is_required():
            property_schema["default"] = _to_yaml_value(item.get_default(call_default_factory=True))
        properties[name] = property_schema
    # The name is the stem of the file where it is left out.
    required_names = [name for name, item in Scenario.model_fields.items() if item.is_required() and name != "name"]
    return {
        "$schema": DIALECT,
        "title": "fedmem scenario",
        "description": "One experiment: a federation, what is planted in it, and what is measured.",
        "type": "object",
        "properties": properties,
        # a derived scenario has these from a run
        "if": {"not": {"required": ["derive"]}},
        "then": {"required": required_names},
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.definitions.items())),
    }


def text_of_schema() -> str:
    """The schema as it stands in a file."""
    return json.dumps(scenario_schema(), indent=1, ensure_ascii=False) + "\n"


def write_schema(path: Path | str) -> Path:
    """Writes the schema to a file, which is returned."""
    Path(path).write_text(text_of_schema(), encoding="utf-8")
    return Path(path)


class _Generator(GenerateJsonSchema):
    """Leaves a mark where a component is taken, which pydantic cannot know."""

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        component = getattr(schema["function"]["function"], "__self__", None)
        if isinstance(component, catalogue.Component):
            asked = {_ASKED: (component.family, component.protocols)}
            return {"anyOf": [asked, {"type": "null"}]} if component.is_optional else asked
        return super().function_plain_schema(schema)

    def encode_default(self, dft: Any) -> Any:
        return _to_yaml_value(dft)


class _Definitions:
    """Schemas of annotations; those of components, families and parts are gathered in `definitions`."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def of(self, annotation: Any) -> dict[str, Any]:
        """The schema of an annotation as fedmem checks it."""
        schema = TypeAdapter(annotation).json_schema(schema_generator=_Generator, ref_template="#/$defs/{model}")
        parts = schema.pop("$defs", {})
        self.definitions |= {name: self._with_references(part) for name, part in parts.items()}
        result: dict[str, Any] = self._with_references(schema)
        return result

    def _with_references(self, schema: Any) -> Any:
        """The same with references for components, without the titles that only repeat names."""
        if isinstance(schema, list):
            return [self._with_references(item) for item in schema]
        if not isinstance(schema, Mapping):
            return schema
        items = {key: value for key, value in schema.items() if key not in ("title", _ASKED, "default", "properties")}
        result = {key: self._with_references(value) for key, value in items.items()}
        if "properties" in schema:  # whose keys are names
            result["properties"] = {name: self._with_references(value) for name, value in schema["properties"].items()}
        if "default" in schema:
            result["default"] = schema["default"]
        if "description" in schema:
            result["description"] = _sentence(schema["description"])
        if _ASKED in schema:
            result["$ref"] = f"#/$defs/{self._family(*schema[_ASKED])}"
        return result

    def _family(self, family: str, protocols: Sequence[type]) -> str:
        """The definition of all kinds of a family that keep one of these contracts."""
        whole = tuple(protocols) == PROTOCOLS[family]
        name = family if whole else ".".join([family, *(protocol.__name__ for protocol in protocols)])
        if name not in self.definitions:
            self.definitions[name] = {}  # a component may hold one of its own family
            members = catalogue.kinds(family) if whole else catalogue.kinds_that_satisfy(family, protocols)
            members = (*members, *_installed_kinds(family, protocols))
            references = [{"$ref": f"#/$defs/{self._kind(family, kind)}"} for kind in members]
            self.definitions[name] = {
                "description": f"One of the kinds that `fedmem list {family}` shows, or a class of your own.",
                "oneOf": [*references, _FOREIGN],
            }
        return name

    def _kind(self, family: str, kind: str) -> str:
        """The definition of one kind."""
        name = f"{family}.{kind}"
        if name in self.definitions:
            return name
        self.definitions[name] = {}
        cls = catalogue.load(family, kind)
        if catalogue.is_flower_strategy(family, cls):
            kind_only = {"kind": {"const": kind, "description": about(family, kind)}}
            self.definitions[name] = {"type": "object", "properties": kind_only, "required": ["kind"]}
            return name
        meanings, model = catalogue.explain(cls), catalogue.fields_model(cls)
        schema = self.of(model)
        properties = {
            item.name: schema["properties"][item.name] | {"description": _sentence(meanings.get(item.name))}
            for item in fields(cls)
        }
        self.definitions[name] = {
            "type": "object",
            "description": about(family, kind),
            "properties": {"kind": {"const": kind, "description": about(family, kind)}, **properties},
            "required": ["kind", *schema.get("required", ())],
            "additionalProperties": False,
        }
        return name


def _installed_kinds(family: str, protocols: Sequence[type]) -> Iterator[str]:
    """The kinds of installed packages that satisfy one of these contracts; what cannot be imported is left out."""
    for kind in installed_kinds(family, catalogue.kinds(family)):
        with suppress(ComponentError):
            cls = catalogue.load(family, kind)
            fits = any(catalogue.satisfies(cls, protocol) for protocol in protocols)
            if fits or catalogue.is_flower_strategy(family, cls):
                yield kind


def _to_yaml_value(value: Any) -> Any:
    """A default as it would be written in YAML."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else catalogue.to_yaml_value(value)


def _sentence(text: str | None) -> str:
    """A description that begins with a capital letter and ends with a full stop."""
    sentence = " ".join((text or "").split())
    capital = sentence[:1].upper() + sentence[1:]
    return capital if capital.endswith((".", "?", "!")) or not capital else f"{capital}."
