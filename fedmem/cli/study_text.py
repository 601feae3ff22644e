"""A comparison or sweep before it is run: all that is wrong with any setting, or what it will do and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.cli.plan_text import title_lines
from fedmem.contracts.events import count
from fedmem.errors import Problem, ScenarioError
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.scenario.yaml_source import Source
    from fedmem.studies.cost import StudyCost
    from fedmem.studies.grid import Cell


def is_sweep(source: Source) -> bool:
    """Whether this document is a sweep file, right or wrong; one that cannot be read is none.

    A scenario has no `base`, `axes` or `search`. One that has such a key by mistake still names its data or model.
    """
    value = source.value
    if not isinstance(value, dict) or ("base" not in value and {"dataset", "model"} & value.keys()):
        return False
    return bool({"base", "axes", "search"} & value.keys())


def study_text(
    file: Path,
    vary: Sequence[str],
    seeds: str,
    overrides: Sequence[str],
    out: Path,
    columns: int = 100,
    *,
    sweep: Source | None = None,
) -> str:
    """The plan of a study for people: lines of at most this width under their titles.

    `sweep` is the document in the file of a sweep; without one the file is a scenario that is compared.

    Errors: `ScenarioError` with everything that is wrong in any setting.
    """
    if sweep is not None:
        study = _sweep(file, sweep, vary, overrides, out)
    else:
        study = _comparison(file, vary, seeds, overrides, out)
    lines = _lines(study)
    return "\n".join(line for title, text in lines for line in title_lines(title, text, columns))


@dataclass(frozen=True, kw_only=True)
class _Study:
    """Its cells, what they cost, and how often: a search tries settings like its first one.

    `is_compared` says that differences of its settings, kinds or levels are tested over seeds.
    """

    cells: Sequence[Cell]
    cost: StudyCost
    trials: int = 0
    is_compared: bool = False


def _comparison(file: Path, vary: Sequence[str], seeds: str, overrides: Sequence[str], out: Path) -> _Study:
    from fedmem.studies.compare import check_distinct_names
    from fedmem.studies.cost import cost_of
    from fedmem.studies.grid import cross_settings, parse_seeds, parse_vary, settings_of

    values, all_seeds = parse_vary(vary), parse_seeds(seeds)
    check_distinct_names(values, overrides)
    cells, problems = cross_settings(file, settings_of(values), all_seeds, overrides)
    return _Study(cells=cells, cost=cost_of(cells, all_seeds, out, problems), is_compared=True)


def _sweep(file: Path, source: Source, vary: Sequence[str], overrides: Sequence[str], out: Path) -> _Study:
    from fedmem.studies.cost import cost_of
    from fedmem.studies.feasibility import check_search
    from fedmem.studies.grid import cross_settings
    from fedmem.studies.sweep_file import load_sweep, places_of

    for name, given in (("--vary", vary), ("--set", overrides)):
        if given:
            message = f"belongs to scenarios; write it into the sweep file {file}, under axes or set"
            raise ScenarioError([Problem(path="", message=message, source=f"{name} {given[0]}")])
    plan, base = load_sweep(file, source)
    with places_of(plan, file):
        settings = plan.settings()
        if plan.search is not None:
            options = [axis.options_to_check() for axis in plan.axes]
            settings = (check_search(base, options, plan.all_seeds, plan.overrides, out=out),)
        cells, problems = cross_settings(base, settings, plan.all_seeds, plan.overrides)
        # of a search, the first possible setting stands for all trials, also where it is finished
        cost = cost_of(cells, plan.all_seeds, out if plan.search is None else None, problems)
    return _Study(cells=cells, cost=cost, trials=0 if plan.search is None else plan.search.trials)


def _lines(study: _Study) -> Iterator[tuple[str, str]]:
    from fedmem.scenario.caveats import caveats
    from fedmem.studies.cost import price_text
    from fedmem.studies.reading_notes import few_seeds_warning

    cost, times = study.cost, max(1, study.trials)
    seeds = len({cell.seed for cell in study.cells})
    settings = study.trials or len({cell.setting for cell in study.cells})
    what = "trials" if study.trials else f"setting{'s' * (settings > 1)}"
    finished = f"; {cost.finished} finished before, {cost.scenarios - cost.finished} to run" if cost.finished else ""
    yield (
        "scenarios",
        f"{settings} {what} × {seeds} seed{'s' * (seeds > 1)} = {settings * seeds} scenarios{finished}",
    )
    for text in dict.fromkeys(text for cell in study.cells for text in cell.scenario.notes):
        yield "note", text
    if study.is_compared and (few := few_seeds_warning(seeds)):
        yield "warning", few
    for text in dict.fromkeys(text for cell in study.cells for text in caveats(cell.scenario)):
        yield "warning", text
    like = ", if every trial is like the first setting" if study.trials else ""
    yield "training", f"{count(times * cost.runs, 'run')}, {count(times * cost.steps, 'local step')}{like}"
    yield "time", price_text(cost, cost.processes, times)
    yield (
        "memory",
        f"about {bytes_text(cost.memory)} in a process that runs one scenario at a time"
        + (f", so up to {bytes_text(cost.memory * cost.processes)} in {cost.processes}" * (cost.processes > 1)),
    )
    yield "disk", f"about {bytes_text(times * cost.disk)}"
