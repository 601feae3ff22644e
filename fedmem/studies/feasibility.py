"""Checks of every setting and seed of a study before anything is trained: the data hold it, cohorts can be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import ComponentError, Problem, ScenarioError
from fedmem.studies.grid import Cell, cross_settings, label_of, vary_sources

if TYPE_CHECKING:
    from fedmem.contracts.data import Dataset
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario
    from fedmem.studies.grid import Setting


@dataclass(frozen=True, kw_only=True)
class FeasibleCell:
    """A cell whose data can hold it, with the noise that its data require, and its federation, as lean as planning
    needs it."""

    cell: Cell
    scenario: Scenario
    federation: Federation


def checked_cells(
    source: Path | str | Scenario,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    *,
    out: Path | str,
    force: bool,
) -> tuple[Cell, ...]:
    """The scenarios of a study, all of them possible.

    Finished scenarios are not checked again, unless `force`.

    Errors: one `ScenarioError` with everything that is wrong in any setting or seed, each problem once, with the
    settings that have it.
    """
    from fedmem.execution.run import folder_of
    from fedmem.results.folder import is_finished

    cells, problems = cross_settings(source, settings, seeds, overrides)
    missing = [cell for cell in cells if force or not is_finished(folder_of(cell.scenario, out))]
    problems += problems_of_cells(missing, seeds)
    if problems:
        raise ScenarioError(problems)
    return cells


def check_search(
    source: Path | str | Scenario,
    axes: Sequence[Sequence[Setting]],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    *,
    out: Path | str | None = None,
) -> Setting:
    """Check that every option of every axis of a search is possible, and return the first setting that is.

    Each option is tried with the first options of the other axes and, where these do not fit, with up to 32
    combinations of others. Finished runs in `out` are possible. An option that fits some combinations only is no error:
    the trials that propose the others fail.

    Errors: one `ScenarioError` with everything that is wrong with options that fit nothing, each problem once.
    """
    trier = _Trier(source=source, seeds=seeds, overrides=overrides, out=out)
    possible: dict[Setting, None] = {}
    wrong_results: list[tuple[Cell, list[Problem]]] = []
    wrong_texts: dict[str, Problem] = {}
    for place, options in enumerate(axes):
        for option in options:
            others = (*axes[:place], [option], *axes[place + 1 :])
            problems, results = [], []
            for number, parts in enumerate(islice(product(*others), _COMBINATIONS)):
                setting = sum(parts, ())
                new_problems, new_results = trier.problems_of(setting)
                if not (new_problems or new_results):
                    possible[setting] = None
                    break
                if not number:
                    problems, results = new_problems, new_results
            else:
                wrong_results += [result for result in results if result not in wrong_results]
                wrong_texts |= {str(problem): problem for problem in problems}
    if wrong_results or wrong_texts:
        raise ScenarioError([*wrong_texts.values(), *problems_of_results(wrong_results, seeds)])
    return next(iter(possible))


_COMBINATIONS = 32
"""How many combinations with other axes an option of a search is tried in before it is called impossible."""


@dataclass(frozen=True, kw_only=True)
class _Trier:
    """Try settings of a search, each once, and collect their problems."""

    source: Path | str | Scenario
    seeds: Sequence[int]
    overrides: Sequence[str]
    out: Path | str | None
    known: dict[Setting, tuple[list[Problem], list[tuple[Cell, list[Problem]]]]] = field(default_factory=dict)

    def problems_of(self, setting: Setting) -> tuple[list[Problem], list[tuple[Cell, list[Problem]]]]:
        """The problems of the setting itself, and those that the data show in its cells."""
        from fedmem.execution.run import folder_of
        from fedmem.results.folder import is_finished

        if setting not in self.known:
            cells, problems = cross_settings(self.source, [setting], self.seeds, self.overrides)
            missing = [
                cell for cell in cells if self.out is None or not is_finished(folder_of(cell.scenario, self.out))
            ]
            tried = [(cell, result) for cell, result in try_cells(missing) if not isinstance(result, FeasibleCell)]
            self.known[setting] = problems, tried
        return self.known[setting]


def problems_of_cells(cells: Sequence[Cell], seeds: Sequence[int]) -> list[Problem]:
    """Problems that only the data or the draws of a seed show: each once, with the settings that have it."""
    return problems_of_results(
        [(cell, result) for cell, result in try_cells(cells) if not isinstance(result, FeasibleCell)], seeds
    )


def problems_of_results(results: Sequence[tuple[Cell, list[Problem]]], seeds: Sequence[int]) -> list[Problem]:
    """The problems of some cells, each once, with the settings that have it."""
    places: dict[Problem, list[Cell]] = {}
    for cell, problems in results:
        for problem in problems:
            places.setdefault(problem, []).append(cell)
    return [
        replace(problem, message=f"{problem.message} ({_settings_text(found, seeds)})")
        for problem, found in places.items()
    ]


def _settings_text(cells: Sequence[Cell], seeds: Sequence[int]) -> str:
    """Which settings, and of them which seeds, unless these are all."""
    seeds_by_label: dict[str, list[int]] = {}
    for cell in cells:
        seeds_by_label.setdefault(label_of(cell.setting), []).append(cell.seed)
    texts = [
        label if len(found) == len(seeds) else f"{label} with seed{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
        for label, found in seeds_by_label.items()
    ]
    return f"setting{'s' * (len(texts) > 1)} {'; '.join(texts)}"


def try_cells(cells: Sequence[Cell]) -> Iterator[tuple[Cell, FeasibleCell | list[Problem]]]:
    """Each cell with its federation, or with all that is wrong with it; cells with the same data come together."""
    from fedmem.execution.grouping import data_of

    by_data: dict[str, list[Cell]] = {}
    for cell in cells:
        by_data.setdefault(data_of(cell.scenario), []).append(cell)
    for members in by_data.values():
        built: _Built | None = None
        for cell in members:
            built = built or _build(cell.scenario)
            yield cell, _try_cell(cell, built)


@dataclass(frozen=True, kw_only=True)
class _Built:
    """The data of some scenarios, and their federation, None where it cannot be built."""

    data: Dataset | None
    federation: Federation | None


def _build(scenario: Scenario) -> _Built:
    from fedmem.execution.plan import minimal_scenario
    from fedmem.federation import build as federations

    data = None
    try:
        data = federations.load(scenario)
        return _Built(data=data, federation=federations.build(minimal_scenario(scenario), data))
    except (ComponentError, ScenarioError):
        return _Built(data=data, federation=None)


def _try_cell(cell: Cell, built: _Built) -> FeasibleCell | list[Problem]:
    from fedmem.execution import memory_budget, memory_plan
    from fedmem.execution.run import with_noise
    from fedmem.federation import build as federations
    from fedmem.federation.compatibility import mismatches
    from fedmem.federation.roster import Cohorts
    from fedmem.guards.guarding import Rescuing
    from fedmem.privacy import record_level

    scenario, federation = cell.scenario, built.federation
    try:
        with Rescuing():
            if federation is None or built.data is None:
                federations.require(scenario, built.data)
                federation = federations.build(scenario, built.data)  # says what the steps one by one do not
            assert built.data is not None
            if wrong := mismatches(scenario, built.data):  # of parts that the federation does not depend on
                raise ScenarioError(list(wrong))
            scenario = with_noise(scenario, federation)
            record_level.require(scenario, federation)
            some = scenario.model_copy(update={"runs": min(scenario.runs, federation.audit.runs)})
            cohorts = Cohorts.draw(some, federation)
            memory_budget.fit_to_budget(scenario, memory_plan.needs_of(scenario, federation, cohorts.largest_cohort))
    except ScenarioError as error:
        found: list[Any] = list(error.problems)
    except ComponentError as error:
        found = [Problem(path=error.path, message=error.message)]
    else:
        return FeasibleCell(cell=cell, scenario=scenario, federation=federation)
    sources = vary_sources(cell.setting)
    placed = [scenario.place(problem) for problem in found]
    return [replace(problem, source=sources.get(problem.source, problem.source)) for problem in placed]
