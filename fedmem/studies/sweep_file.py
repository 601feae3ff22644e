"""A sweep file: a scenario, the axes along which it is changed, and seeds; every combination, or a search among them.

base: ../scenarios/quickstart.yaml        # relative to this file
set: {runs: 16}                           # for all of them
axes:
  - {path: strategy.kind, values: [fedavg, fedmedian]}
  - {path: client.lr, range: [0.03, 0.3], steps: 4, scale: log}
  - {zip: {clients: [10, 20], sampler.size: [5, 10]}}
seeds: 0:5
search: {study: front, trials: 40, directions: {test_accuracy: maximize, "exposure, random_pattern": minimize}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator

from fedmem.errors import Problem, ScenarioError
from fedmem.scenario.section import Positive, Slug
from fedmem.scenario.validation import problems_of
from fedmem.scenario.yaml_source import Source, read_file, write_flow
from fedmem.shipped.files import find_scenario, folder, scenario_names
from fedmem.studies.grid import Setting, parse_seeds, parse_vary


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Path_ = Annotated[str, Strict(), Field(min_length=1, description="YAML path, such as client.lr")]


class Axis(_Part):
    """One of `values`, `range` and `zip`: what a path takes, or several paths together."""

    path: Path_ | None = Field(default=None, description="what changes, such as strategy.kind; with values or range")
    values: Annotated[tuple[Any, ...], Field(min_length=1)] | None = Field(
        default=None, description="one after the other"
    )
    range: tuple[Annotated[float, Strict()], Annotated[float, Strict()]] | None = Field(
        default=None, description="from, to; whole numbers where both ends are and the scale is linear"
    )
    steps: Annotated[int, Strict(), Field(ge=2, le=1000)] = Field(
        default=5, description="values of a range that a grid takes, evenly spaced; a search takes any"
    )
    scale: Literal["linear", "log"] = Field(default="linear", description="of a range")
    zip: Annotated[dict[Path_, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=2)] | None = Field(
        default=None, description="paths that change together: the first values of all, the second of all, and so on"
    )

    @model_validator(mode="after")
    def _check_one_form(self) -> Axis:
        field_names = [name for name in ("values", "range", "zip") if getattr(self, name) is not None]
        if len(field_names) != 1:
            raise ValueError(f"should have one of values, range and zip, got {' and '.join(field_names) or 'none'}")
        if (self.path is None) != (self.zip is not None):
            raise ValueError("should name its path" if self.path is None else "should have no path in addition to zip")
        if self.range is not None and not (
            self.range[0] < self.range[1] and (self.scale == "linear" or self.range[0] > 0)
        ):
            raise ValueError("should have a range that rises, from above 0 on a log scale")
        if self.zip is not None and len({len(values) for values in self.zip.values()}) > 1:
            raise ValueError("should have as many values for each path of a zip")
        return self

    @property
    def name(self) -> str:
        """Its path, or all of them."""
        return self.path if self.path is not None else "+".join(self.zip or {})

    @property
    def is_whole_numbers(self) -> bool:
        """Whether a range is one of whole numbers."""
        return self.range is not None and self.scale == "linear" and all(end == int(end) for end in self.range)

    def options(self) -> list[Setting]:
        """The options that a grid takes.

        >>> Axis(path="client.lr", range=(0.01, 1.0), steps=3, scale="log").options()
        [(('client.lr', '0.01'),), (('client.lr', '0.1'),), (('client.lr', '1'),)]
        """
        if self.zip is not None:
            columns = [[(path, text_of(value)) for value in values] for path, values in self.zip.items()]
            return [tuple(row) for row in zip(*columns, strict=True)]
        assert self.path is not None
        if self.range is not None:
            numbers = (np.geomspace if self.scale == "log" else np.linspace)(*self.range, self.steps)
            return [((self.path, text),) for text in dict.fromkeys(map(self.number, numbers.tolist()))]
        return [((self.path, text_of(value)),) for value in self.values or ()]

    def options_to_check(self) -> list[Setting]:
        """The options that are tried before a search begins: every value, and both ends of a range.

        >>> Axis(path="client.lr", range=(0.01, 1.0), scale="log").options_to_check()
        [(('client.lr', '0.01'),), (('client.lr', '1'),)]
        """
        if self.range is None:
            return self.options()
        assert self.path is not None
        return [((self.path, self.number(end)),) for end in self.range]

    def number(self, value: float) -> str:
        """A value of the range, to six digits."""
        return str(round(value)) if self.is_whole_numbers else f"{value:.6g}"


class Search(_Part):
    """Settings that are chosen one after the other by what was found, instead of a grid."""

    study: Slug = Field(description="name of the study in its SQLite file")
    trials: Positive = Field(description="settings that are tried in all")
    directions: Annotated[dict[str, Literal["maximize", "minimize"]], Field(min_length=1, max_length=4)] = Field(
        description="metric, then kind, level and words of its setting as far as needed: "
        "`exposure, random_pattern, global: minimize`"
    )
    sampler: Literal["tpe", "nsga2", "random"] = Field(default="tpe", description="Optuna's sampler")
    batch: Positive = Field(default=4, description="settings that are chosen before their results are known")


class Sweep(_Part):
    """A scenario along axes, with seeds: each combination is run once."""

    base: str = Field(description="scenario file, relative to this one, or name of a scenario that fedmem ships")
    name: Slug | None = Field(default=None, description="of the results; the stem of the file if left out")
    set: dict[Path_, Any] = Field(default={}, description="changes to all of them")
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)] = Field(description="what varies; all combinations")
    seeds: str | int | tuple[Annotated[int, Strict(), Field(ge=0, lt=2**63)], ...] = Field(
        default=(0,), description="how many, such as 5, a range such as 0:5, or a list such as [1, 4, 7]"
    )
    search: Search | None = Field(default=None, description="search instead of trying all combinations")

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, seeds: Any) -> Any:
        is_list = isinstance(seeds, list | tuple) and all(type(seed) is int for seed in seeds)
        if isinstance(seeds, str) or type(seeds) is int or is_list:
            try:
                return parse_seeds(seeds)
            except ScenarioError as error:
                raise ValueError(error.problems[0].message) from error
        return seeds

    @model_validator(mode="after")
    def _check_distinct_axes(self) -> Sweep:
        paths = [path for axis in self.axes for path in ([axis.path] if axis.path else list(axis.zip or {}))]
        twice = [path for path in dict.fromkeys(paths) if paths.count(path) > 1 or path in self.set]
        if twice:
            raise ValueError(f"should change {twice[0]} in one place only")
        parse_vary([f"{path}=x" for path in paths])  # says what cannot vary
        if "seed" in self.set:
            raise ValueError("should not set seed, which is taken from seeds: write seeds: 0:5, or a list")
        return self

    def settings(self) -> tuple[Setting, ...]:
        """Every combination, the last axis varying fastest."""
        return tuple(sum(options, ()) for options in product(*(axis.options() for axis in self.axes)))

    @property
    def overrides(self) -> list[str]:
        """The changes to all, as after `--set`."""
        return [f"{path}={text_of(value)}" for path, value in self.set.items()]

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds as numbers."""
        assert isinstance(self.seeds, tuple)
        return self.seeds


def text_of(value: Any) -> str:
    """A value as it would be written after `--set`; text stands for itself."""
    return value if isinstance(value, str) else write_flow(value)


def load_sweep(path: Path | str, source: Source | None = None) -> tuple[Sweep, Path]:
    """The sweep in a file, and the file of its scenario; `source` is the document in the file, if it was read already.

    Errors: one `ScenarioError` with all that is wrong.
    """
    file = find_scenario(path)
    source = read_file(file) if source is None else source
    if not isinstance(source.value, Mapping):
        message = "a sweep is a mapping of base, axes and seeds"
        raise ScenarioError(source.problems or [Problem(path="", message=message, line=1, source=str(file))])
    if "base" not in source.value and {"dataset", "model"} & source.value.keys():
        message = f"this is a scenario, not a sweep of one; run it with: fedmem run {file}"
        raise ScenarioError([Problem(path="", message=message, line=1, source=str(file))])
    try:
        sweep = Sweep.model_validate({"name": file.stem, **source.value})
    except ValidationError as error:
        parts: tuple[type[BaseModel], ...] = (Search, Sweep)
        meanings = {name: str(item.description) for part in parts for name, item in part.model_fields.items()}
        problems = problems_of(error, source.value, Sweep, meanings)
        raise ScenarioError(
            [*source.problems, *(_locate_problem(problem, source.lines, file) for problem in problems)]
        ) from error
    except ScenarioError as error:
        raise ScenarioError(
            [Problem(path="axes", message=problem.message, source=str(file)) for problem in error.problems]
        ) from error
    if source.problems:
        raise ScenarioError(source.problems)
    base = file.parent / sweep.base
    if not base.exists() and sweep.base in scenario_names():
        base = folder() / f"{sweep.base}.yaml"
    if not base.exists():
        message = (
            f"there is no such file: {base}; a path is relative to the folder of this file, and a name such as "
            "quickstart is a scenario that fedmem ships"
        )
        raise ScenarioError([_locate_problem(Problem(path="base", message=message), source.lines, file)])
    return sweep, base


@contextmanager
def places_of(plan: Sweep, path: Path | str) -> Iterator[None]:
    """Reports mistakes in a setting with the place in the sweep file that gives it."""
    try:
        yield
    except ScenarioError as error:
        file = find_scenario(path)
        lines = read_file(file).lines
        places: dict[str, str] = {f"--set {text}": f"set.{text.partition('=')[0]}" for text in plan.overrides}
        for number, axis in enumerate(plan.axes):
            for setting in axis.options():
                places |= {f"--vary {name}={value}": f"axes[{number}]" for name, value in setting}
        problems = []
        for problem in error.problems:
            if problem.source in places:
                placed_problem = _locate_problem(replace(problem, path=places[problem.source]), lines, file)
                change = problem.source.partition(" ")[2]
                message = (
                    problem.message
                    if change.startswith(f"{problem.path}=") or not problem.path
                    else f"{problem.path}: {problem.message}"
                )
                problems.append(replace(placed_problem, path=change, message=message))
            elif problem.source in ("", "--vary"):
                problems.append(_locate_problem(replace(problem, path=problem.path or "axes"), lines, file))
            else:
                problems.append(problem)
        raise ScenarioError(_merge_values(problems)) from error


def _merge_values(problems: Sequence[Problem]) -> list[Problem]:
    """Merge problems that occur for every value into one, with the path alone."""
    by_message: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        key = (problem.source, problem.line, problem.path.partition("=")[0], problem.message)
        by_message.setdefault(key, []).append(problem)
    return [
        group[0] if len(group) == 1 else replace(group[0], path=group[0].path.partition("=")[0])
        for group in by_message.values()
    ]


def _locate_problem(problem: Problem, lines: Mapping[Any, int], file: Path) -> Problem:
    """With the line of the innermost place on its path that was written."""
    from fedmem.scenario.yaml_source import place_parts

    try:
        place = place_parts(problem.path)
    except ValueError:
        place = tuple(problem.path.split(".", 1)) if problem.path.startswith("set.") else ()
    line = next((lines[place[:length]] for length in range(len(place), 0, -1) if place[:length] in lines), None)
    return Problem(path=problem.path, message=problem.message, line=line, source=str(file))


def text_of_schema() -> str:
    """The JSON Schema of sweep files."""
    return json.dumps(Sweep.model_json_schema(), indent=1, ensure_ascii=False) + "\n"
