"""A new scenario file that starts from another one, with a comment for each key."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from fedmem.errors import FolderError, Problem, ScenarioError
from fedmem.scenario.catalogue import to_yaml_value
from fedmem.scenario.json_schema import write_schema
from fedmem.scenario.loading import load_scenario, parse_scenario
from fedmem.scenario.overrides import FAMILY_OF_FIELD
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.section import Slug
from fedmem.scenario.yaml_source import STDIN, write, write_flow
from fedmem.shipped.files import find_scenario, scenario_names

SCHEMA = "scenario.schema.json"

_HELP = (
    "`fedmem list FAMILY` lists the kinds of a family such as sampler, and `fedmem show FAMILY KIND` explains one with "
    "its fields."
)
_WIDTH = 100
_KEY = re.compile(r"([a-z_]+):")
_REPLACED = ("# fedmem ", "# yaml-language-server:", "# Takes about ")
"""How lines of a header begin that are about the file itself."""


def write_new(name: str, source: str = "quickstart") -> list[Path]:
    """Write NAME.yaml, and in the same folder the JSON Schema that editors complete it from, if that is missing.

    Args:
        name: Name of the scenario, or a path with or without the suffix `.yaml`.
        source: The scenario to start from: a name or a file. Only its name changes.

    Returns:
        The files that were written.

    Errors: `ScenarioError` for a name that cannot be used, a file that exists, and what is wrong with the source.
    """
    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else Path(f"{name}.yaml")
    _require_usable(name, file)
    scenario, text = _load_source(source)
    content = _add_comments(text, file)
    if not _is_same(content, file.stem, scenario):
        # the keys of the source do not begin lines, so its values are written out
        content = _add_comments(write(scenario.dump()), file)
        assert _is_same(content, file.stem, scenario)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(content)
    except OSError as error:
        raise FolderError(f"{file} cannot be written: {error.strerror or error}") from error
    schema = file.parent / SCHEMA
    return [file] if schema.exists() else [file, write_schema(schema)]


def _require_usable(name: str, file: Path) -> None:
    message = ""
    try:
        TypeAdapter(Slug).validate_python(file.stem)
    except ValidationError as error:
        message = f"is no name of a scenario: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
    if not message and file.parent == Path() and file.stem in scenario_names():
        message = f"is the name of a scenario that fedmem ships; choose another, such as my_{file.stem}"
    if not message and not file.parent.is_dir():
        message = f"lies in no folder; create {file.parent} first"
    if not message and (file.exists() or file.is_symlink()):
        message = f"cannot be written: {file} exists, and is never overwritten; choose another name, or remove it"
    if message:
        raise ScenarioError([Problem(path="", message=message, source=name)])


def _load_source(source: str) -> tuple[Scenario, str]:
    if source == "-":
        message = "a new scenario starts from a file, not from standard input; give a name such as quickstart"
        raise ScenarioError([Problem(path="", message=message, source=STDIN)])
    return load_scenario(source), find_scenario(source).read_text(encoding="utf-8")


def _is_same(content: str, name: str, scenario: Scenario) -> bool:
    """Whether a text is the scenario under another name."""
    try:
        return parse_scenario(content, name).dump() == scenario.dump() | {"name": name}
    except ScenarioError:
        return False


def _add_comments(text: str, file: Path) -> str:
    """The text of a scenario with a header, its new name, and a comment above each key."""
    lines = text.splitlines()
    body = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    header = [line for line in lines[:body] if not line.startswith(_REPLACED)]
    written, keys = [], set()
    for line in lines[body:]:
        key = match[1] if (match := _KEY.match(line)) and match[1] in Scenario.model_fields else ""
        keys.add(key)
        written += [*_comment(key), f"name: {file.stem}" if key == "name" else line]
    return "\n".join(
        [
            f"# fedmem run {file if str(file).isprintable() else file.name}",
            f"# yaml-language-server: $schema=./{SCHEMA}",
            *header,
            *_wrap(_HELP),
            *([] if "name" in keys else [*_comment("name"), f"name: {file.stem}"]),
            *written,
            "",
            "# Further keys and their defaults:",
            *(line for key in Scenario.model_fields if key not in keys | {"name"} for line in _default(key)),
            "",
        ]
    )


def _comment(key: str) -> Iterator[str]:
    """Lines with the meaning of a key and the command that lists its kinds."""
    if not key:
        return
    yield from ("", *_wrap(_meaning(key)))


def _meaning(key: str) -> str:
    text = str(Scenario.model_fields[key].description)
    family = FAMILY_OF_FIELD.get(key)
    hint = f" (fedmem list {family})" if family else ""
    return f"{text[:1].upper()}{text[1:]}{hint}."


def _wrap(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)]


def _default(key: str) -> Iterator[str]:
    """A key that is left out, with its default where that is short."""
    item = Scenario.model_fields[key]
    if item.is_required():
        return
    default = item.get_default(call_default_factory=True)
    # a group of keys is explained, but not written out
    value = "" if isinstance(default, BaseModel) else write_flow(to_yaml_value(default))
    yield from _wrap(
        f"{key}: {value}  ({item.description})" if 0 < len(value) <= 40 else f"{key}  ({item.description})"
    )
