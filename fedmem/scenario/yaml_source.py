"""Reads YAML that may come from anyone, and remembers the line of every key.

Values follow the YAML 1.2 core schema (`1e-3` is a number, `no` and `on` are text). Tags, aliases, duplicate keys,
several documents, deep nesting and huge files are refused, so that a file is what it looks like.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from fedmem.errors import Problem
from fedmem.shipped.files import missing_text

Place = tuple[str | int, ...]
"""Where a value stands: keys and positions from the root."""

STDIN = "stdin"
"""The name of the file if a scenario comes from standard input."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

_WORD = re.compile(r"[A-Za-z_0-9][\w-]*")
_ESCAPE = re.compile(r"\\U([0-9a-fA-F]{8})")
_SURROGATE = re.compile("[\ud800-\udfff]")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_FLOAT = re.compile(rf"^(?:{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$")
_RESOLVERS: tuple[tuple[str, re.Pattern[str], list[str]], ...] = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Knows the resolvers of YAML 1.1 and of the loader, so that text is quoted where either would misread it."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Outside double quotes, PyYAML writes exotic line breaks that it reads back as spaces.
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)

for _tag, _pattern, _first in _RESOLVERS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


class _Composer(Composer, Resolver):
    """Builds nodes from events that were parsed before, so that no text is scanned twice."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def __init__(self, events: Sequence[yaml.Event]) -> None:
        Composer.__init__(self)
        Resolver.__init__(self)
        self._events = deque(events)

    def check_event(self, *choices: type[yaml.Event]) -> bool:
        return isinstance(self._events[0], choices)

    def peek_event(self) -> yaml.Event:
        return self._events[0]

    def get_event(self) -> yaml.Event:
        return self._events.popleft()


@dataclass(frozen=True, kw_only=True)
class Source:
    """A document that was read: its plain value (None where it is unusable), the line of every place, what is wrong."""

    value: Any
    lines: Mapping[Place, int]
    problems: tuple[Problem, ...]


def place_text(place: Place) -> str:
    """A place as it is written in messages; a key that is no plain word stands in quotes, special characters escaped.

    >>> place_text(("injections", 1, "per_client")), place_text(("client", "my lr"))
    ('injections[1].per_client', "client.'my lr'")
    """
    text = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" if _WORD.fullmatch(part) else f".{part!r}"
        for part in place
    )
    return text.removeprefix(".")


def place_parts(text: str) -> Place:
    """The place that a text names; positions may be written `[1]` or `.1`. ValueError where it is no path.

    >>> place_parts("injections[1].per_client") == place_parts("injections.1.per_client")
    True
    """
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    if any(not _WORD.fullmatch(part) or (part.isdecimal() and len(part) > 9) for part in parts):
        raise ValueError(f"{text!r} is no path such as strategy.kind or injections[0].copies")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def read_file(path: Path) -> Source:
    """The document in a file, `-` for standard input; what cannot be read is a problem, not an exception."""
    name = STDIN if str(path) == "-" else str(path)
    try:
        if name == STDIN:
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            # no more than can be used: a device may never end
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return _broken_source(name, f"the file has more than {MAX_BYTES} bytes, the most that a scenario may have")
        text = raw.decode("utf-8")
    except FileNotFoundError:
        return _broken_source(name, missing_text(name))
    except IsADirectoryError:
        return _broken_source(name, "this is a folder; give the path of a YAML file in it")
    except UnicodeDecodeError as error:
        return _broken_source(name, f"the file is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except OSError as error:
        return _broken_source(name, f"the file cannot be read: {error.strerror}")
    return read_text(text, name)


def read_text(text: str, name: str) -> Source:
    """The one document in a text; `name` stands for the file in messages.

    >>> read_text("sampler: {kind: uniform, size: 10}", "x.yaml").value
    {'sampler': {'kind': 'uniform', 'size': 10}}
    """
    try:
        events: list[yaml.Event] = []
        refusals = tuple(_find_forbidden(text, name, events))
        if refusals:
            return Source(value=None, lines={}, problems=refusals)
        node = _Composer(events).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = _mark_of(error)
        line = None if mark is None else mark.line + 1
        parts = (error.context, error.problem, "check indentation, brackets and quotes around here")
        return _broken_source(name, "this is not valid YAML: " + "; ".join(part for part in parts if part), line)
    except yaml.YAMLError as error:
        return _broken_source(name, f"this is not valid YAML: {error}")
    except (ValueError, OverflowError):
        # PyYAML turns escapes into characters without looking at their size.
        beyond = (match for match in _ESCAPE.finditer(text) if int(match[1], 16) > sys.maxunicode)
        line = next((text.count("\n", 0, match.start()) + 1 for match in beyond), None)
        return _broken_source(name, "an escape names a character beyond Unicode; use one up to \\U0010FFFF", line)
    if node is None:
        return _broken_source(name, "the file is empty; `fedmem new NAME` writes a scenario to start from")
    lines: dict[Place, int] = {}
    problems: list[Problem] = []
    value = _value(node, (), name, lines, problems)
    return Source(value=value, lines=lines, problems=tuple(problems))


def _mark_of(error: yaml.MarkedYAMLError) -> yaml.Mark | None:
    """Where a mistake is: a bracket or quotes that are never closed, at the line that opens them."""
    opening, place = error.context_mark, error.problem_mark
    is_open = opening is not None and place is not None and place.line > opening.line
    if is_open and str(error.context).startswith(("while parsing a flow", "while scanning a quoted")):
        return opening
    return place or opening


def read_value(text: str) -> Any:
    """One value from the command line, typed as in a file. ValueError where it is none.

    >>> read_value("1e-3"), read_value("[4, 8]"), read_value("no")
    (0.001, [4, 8], 'no')
    """
    source = read_text(text, "") if text.strip() else Source(value=None, lines={}, problems=())
    if source.problems:
        raise ValueError("; ".join(problem.message for problem in source.problems))
    return source.value


def write(value: Any) -> str:
    """YAML that reads back as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def write_flow(value: Any) -> str:
    """The same on one line, `{kind: uniform, size: 10}`.

    >>> write_flow({"kind": "mlp", "hidden": [64]}), write_flow(None)
    ('{kind: mlp, hidden: [64]}', 'null')
    """
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def write_short(value: Mapping[str, Any], width: int) -> str:
    """The same with each key's value on one line, or each item of its list, as far as they fit into the width.

    >>> print(write_short({"probes": [{"kind": "utility"}], "sampler": {"kind": "everyone"}}, 80), end="")
    probes:
      - {kind: utility}
    sampler: {kind: everyone}
    """
    text = ""
    for key, inner in value.items():
        items = [f"  - {write_flow(item)}" for item in inner] if isinstance(inner, list) else []
        lines = [f"{key}:", *items] if items else [f"{key}: {write_flow(inner)}"]
        text += write({key: inner}) if max(map(len, lines)) > width else "\n".join(lines) + "\n"
    return text


def _broken_source(name: str, message: str, line: int | None = None) -> Source:
    return Source(value=None, lines={}, problems=(Problem(path="", message=message, line=line, source=name),))


def _find_forbidden(text: str, name: str, events: list[yaml.Event]) -> Iterator[Problem]:
    """Find forbidden parts of a scenario in the event stream, before anything is built from it; fills `events`."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        events.append(event)
        mark = event.start_mark
        line = None if mark is None else mark.line + 1
        message, tag = "", getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            message = f"alias '*{event.anchor}' is not allowed; write the value out"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            message = "a second document is not allowed; keep one scenario in a file" if documents == 2 else ""
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield Problem(
                    path="", message=f"nested more than {MAX_DEPTH} levels deep; flatten it", line=line, source=name
                )
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if _SURROGATE.search(getattr(event, "value", None) or ""):
            message = "an escape from \\ud800 to \\udfff is half a character; write the character itself"
        if tag is not None:
            message = f"tag {tag!r} is not allowed; write a plain value"
        if message:
            yield Problem(path="", message=message, line=line, source=name)


def _value(node: yaml.Node, place: Place, name: str, lines: dict[Place, int], problems: list[Problem]) -> Any:
    """The plain value of a node; lines and problems are added to what is passed in."""
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*place, i), name, lines, problems) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, place, name, problems)
    assert isinstance(node, yaml.MappingNode)
    value: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem(path=place_text(place), message="keys must be plain words", line=line, source=name))
            continue
        key = str(key_node.value)
        inner = (*place, key)
        if key in value:
            message = f"the key is given twice, first in line {lines[inner]}; keep one"
            problems.append(Problem(path=place_text(inner), message=message, line=line, source=name))
            continue
        lines[inner] = line
        value[key] = _value(value_node, inner, name, lines, problems)
    return value


def _scalar(node: yaml.ScalarNode, place: Place, name: str, problems: list[Problem]) -> Any:
    text, kind = str(node.value), node.tag.rpartition(":")[2]
    if kind == "int":
        if len(text) > 400:
            message = f"a number of {len(text)} digits is too long"
            line = node.start_mark.line + 1
            problems.append(Problem(path=place_text(place), message=message, line=line, source=name))
            return 0
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return {"null": None, "bool": text.lower() == "true"}.get(kind, text)
