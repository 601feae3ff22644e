"""Errors of pydantic and YAML in words: problems with place, value and remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from fedmem.errors import Problem
from fedmem.scenario.yaml_source import Place, place_text
from fedmem.wording import choices, did_you_mean

_KINDS = {
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "dict_type": "should be a mapping",
    "mapping_type": "should be a mapping",
    "model_type": "should be a mapping",
    "finite_number": "should be a finite number",
}


def join(outer: str, inner: str) -> str:
    """One path from two.

    >>> join("probes[1]", "attack.kind"), join("", "seed"), join("seed", "")
    ('probes[1].attack.kind', 'seed', 'seed')
    """
    return f"{outer}{'' if not outer or not inner or inner.startswith('[') else '.'}{inner}"


def problems_of(
    error: ValidationError,
    value: object,
    model: type[BaseModel],
    explained: Mapping[str, str],
    prefix: str = "",
    more: Sequence[str] = (),
) -> list[Problem]:
    """Every mistake that pydantic found in `value`, in our words; alternatives of a union become one problem.

    `more` are keys in addition to the fields of the model.
    """
    messages_by_path: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        place = _place(item["loc"], value, item["type"])
        path = join(prefix, place_text(place))
        if item["type"] == "component":
            for problem in item["ctx"]["problems"]:
                messages_by_path.setdefault(join(path, problem.path), []).append(problem.message)
            continue
        if item["type"] == "extra_forbidden":
            keys = [*(more if len(place) == 1 else ()), *_keys(model, place[:-1])]
            message = f"unknown key{choices(place[-1], keys)}"
        elif item["type"] == "missing":
            meaning = explained.get(str(place[-1]), "")
            message = "is missing; give it" + (f": {meaning}" if meaning else "")
        else:
            message = f"{_sentence(item)}, got {item['input']!r}{_suggestion(item)}"
        messages_by_path.setdefault(path, []).append(message)
    return [Problem(path=path, message=_merge_alternatives(messages)) for path, messages in messages_by_path.items()]


def _place(location: tuple[int | str, ...], value: Any, kind: str) -> Place:
    """The part of pydantic's location that exists in the input: it also names alternatives of unions."""
    place: list[str | int] = []
    for position, part in enumerate(location):
        inside = (
            part in value
            if isinstance(value, Mapping)
            else isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value)
        )
        if inside:
            value = value[part]
        elif str(part).startswith("<"):
            continue  # the tag of an alternative
        elif not (kind in ("missing", "extra_forbidden") and position == len(location) - 1):
            break
        place.append(part)
    return tuple(place)


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that the mapping at a place accepts."""
    for part in place:
        if isinstance(part, int):
            continue  # an entry of a list, whose annotation names the model of its entries
        inner = section_in(model.model_fields[part].annotation)
        assert inner is not None, f"only a part has unknown keys, and {part} is none"
        model = inner
    return [item.alias or name for name, item in model.model_fields.items()]


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, also inside a tuple or a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def _sentence(item: Mapping[str, Any]) -> str:
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    if item["type"] in ("too_short", "too_long"):
        is_upper = item["type"] == "too_long"
        count = item["ctx"]["max_length" if is_upper else "min_length"]
        return f"should have at {'most' if is_upper else 'least'} {count} {'entry' if count == 1 else 'entries'}"
    text = str(item["msg"]).replace("Input should be", "should be")
    return _KINDS.get(item["type"], text[:1].lower() + text[1:])


def _suggestion(item: Mapping[str, Any]) -> str:
    """A suggestion where the value is one of a few words."""
    if item["type"] != "literal_error":
        return ""
    words = str(item["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    return did_you_mean(item["input"], [word.strip("'") for word in words])


def _merge_alternatives(messages: list[str]) -> str:
    """Alternatives joined; the value is named once."""
    if len(messages) == 1:
        return messages[0]
    parts = [message.rpartition(", got ")[0] or message for message in messages]
    return " or ".join(dict.fromkeys(parts)) + ", got " + messages[0].rpartition(", got ")[2]
