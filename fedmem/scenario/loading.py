"""From YAML text and overrides to a checked scenario."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    TypeAdapter,
    ValidationError,
)

from fedmem.errors import ComponentError, FedmemError, Problem, ScenarioError
from fedmem.guards.guarding import Rescuing
from fedmem.scenario import checks, yaml_source
from fedmem.scenario.derived import Derive, derive_tree, source_folder
from fedmem.scenario.initial import beside_file
from fedmem.scenario.overrides import Origin, override
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.shortened import clip_observed
from fedmem.scenario.unfolding import last_phase
from fedmem.scenario.validation import problems_of, section_in
from fedmem.scenario.yaml_source import Source
from fedmem.shipped.files import clash_note, find_scenario
from fedmem.wording import choices


def load_scenario(path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario in a file, changed by overrides such as `strategy.kind=fedmedian` or `injections[0].copies=4`.

    A name such as `quickstart` is a scenario that fedmem ships, unless the current folder has a file of that name. The
    file `-` is standard input. Values of overrides are typed as in YAML. Changing a `kind` drops those fields of the
    file that the new kind does not know. Where an override lowers `rounds`, observed rounds that it cuts off are left
    out. The `notes` of the scenario name them, and a file that is used instead of a shipped scenario.

    Errors: one `ScenarioError` with every problem found, each with its line or its override.
    """
    return load_source(yaml_source.read_file(find_scenario(path)), path, overrides)


def load_source(source: Source, path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """The same from a document that was read already, from the file or by the name `path`; it is used up."""
    file = find_scenario(path)
    name = yaml_source.STDIN if str(file) == "-" else str(file)
    scenario = _resolve(source, name, Path(name).stem, overrides)
    clash = clash_note(path)
    scenario._notes = ((clash,) if clash else ()) + scenario.notes
    return scenario


def parse_scenario(text: str, name: str = "scenario", overrides: Sequence[str] = ()) -> Scenario:
    """The same from a text; `name` stands for the file.

    >>> text = "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: mlp}}"
    >>> parse_scenario(text, overrides=["model.hidden=[4, 4]"]).model.hidden
    (4, 4)
    """
    return _resolve(yaml_source.read_text(text, name), name, name, overrides)


def _resolve(source: Source, file: str, stem: str, overrides: Sequence[str]) -> Scenario:
    if source.value is None and source.problems:
        raise ScenarioError(source.problems)
    if not isinstance(source.value, dict):
        description = {list: "a list", type(None): "nothing"}.get(type(source.value), repr(source.value)[:40])
        message = f"a scenario is a mapping of keys such as rounds: 40, got {description}"
        raise ScenarioError([Problem(path="", message=message, line=1, source=file)])
    if {"base", "axes"} <= source.value.keys():
        message = f"this is a sweep file, not a scenario; run it with: fedmem sweep {file}"
        raise ScenarioError([Problem(path="", message=message, line=1, source=file)])
    tree, origin = source.value, Origin(file, source.lines)
    file_rounds = tree.get("rounds")
    problems = [*source.problems, *override(tree, overrides, origin)]
    if not origin.is_overridden(("initial_weights", "from")) and (path := beside_file(tree, file)):
        tree["initial_weights"]["from"] = path
    has_name = "name" in tree
    tree.setdefault("name", stem)
    tree, derived_notes, source_run = _derive(tree, origin)
    values, field_problems = _fields(tree)
    values, notes = clip_observed(values, file_rounds, origin)
    if not has_name and "name" not in values:
        # The text that is wrong stands in no line of the file.
        safe_name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-")[:100] or "study"
        rest = [problem for problem in field_problems if problem.path != "name"]
        field_problems = [
            *rest,
            Problem(
                path="name",
                message=f"the file is called {stem!r}, and results would be kept under that "
                f"name, which should be letters, digits, '.', '_' or '-' only; write name: {safe_name} in the file",
            ),
        ]
    # A key given twice and the like is known already; do not report it again with another line.
    problem_paths = {problem.path for problem in problems if problem.path}
    with Rescuing():
        field_problems += checks.problems(values)
    problems += [origin.locate_problem(problem) for problem in field_problems if problem.path not in problem_paths]
    if problems:
        raise ScenarioError(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
    scenario = Scenario(**values)
    scenario._origin, scenario._notes = origin, (*origin.notes, *derived_notes, *notes)
    scenario._derived_from = source_run
    return last_phase(scenario)


def _derive(tree: dict[str, Any], origin: Origin) -> tuple[dict[str, Any], tuple[str, ...], Path | None]:
    """The whole scenario that a tree with `derive` stands for, notes, and the run; any other tree as it is."""
    rest = dict(tree)
    value = rest.pop("derive", None)
    if value is None:
        return rest if "derive" in tree else tree, (), None
    try:
        derive = TypeAdapter(Derive).validate_python(value)
        folder = source_folder(derive)
        whole, notes = derive_tree(rest, derive, folder)
        _require_same_draws(folder)
        return whole, notes, folder
    except ValidationError as error:
        problems = problems_of(error, value, Derive, {}, prefix="derive")
        raise ScenarioError([origin.locate_problem(problem) for problem in problems]) from error
    except ComponentError as error:
        problem = Problem(path=error.path, message=error.message)
        raise ScenarioError([origin.locate_problem(problem)]) from error


def _require_same_draws(folder: Path) -> None:
    """Errors: `ComponentError` where this version of fedmem would not draw the run in a folder as it was drawn.

    An id is a hash of the version of all draws. So the stored scenario then has another id than the run.
    """
    try:
        stored = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("id")
        current = load_scenario(folder / "scenario.yaml").id
    except (OSError, ValueError, AttributeError, FedmemError) as error:
        message = f"{folder} is damaged, or no scenario of this version of fedmem ({error}); run it again"
        raise ComponentError("derive.from", message) from error
    if stored != current:
        message = (
            f"{folder} was made by a version of fedmem with other draws (id {stored}, now {current}). Run its "
            "scenario again, and derive from that"
        )
        raise ComponentError("derive.from", message)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    """A validator for each field, so that a mistake in one field hides no mistake of another."""
    item = Scenario.model_fields[name]
    annotation: Any = Annotated[item.annotation, *item.metadata] if item.metadata else item.annotation
    return TypeAdapter(annotation)


def _fields(tree: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The fields that are right (defaults included), and what is wrong with the others."""
    values: dict[str, Any] = {}
    problems = [
        Problem(path=yaml_source.place_text((key,)), message=f"unknown key{choices(key, Scenario.model_fields)}")
        for key in tree
        if key not in Scenario.model_fields
    ]
    for name, item in Scenario.model_fields.items():
        if name not in tree:
            if item.is_required():
                problems.append(Problem(path=name, message=f"is missing; give it: {item.description}"))
            else:
                values[name] = item.get_default(call_default_factory=True)
            continue
        try:
            values[name] = _adapter(name).validate_python(tree[name])
        except ValidationError as error:
            problems += problems_of(error, tree[name], section_in(item.annotation) or Scenario, {}, prefix=name)
    return values, problems
