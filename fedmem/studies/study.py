"""A study: a question, the cells whose results answer it, their price, and the tables, figure and page that follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, is_dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.errors import Problem, ScenarioError
from fedmem.studies.experiment import trained_on, write_results
from fedmem.studies.experiment_figure import TableFigure
from fedmem.wording import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from fedmem.scenario.scenario import Scenario
    from fedmem.studies.cost import StudyCost

CellArguments = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question that one command answers, `fedmem study run NAME`: `STUDY` in the `run.py` of a folder.

    A cell is a tuple of arguments. `work` is called with them and with `out` and `settings`: the folder of finished
    runs, and `path=value` texts for every scenario. It runs its scenarios by `fedmem.run`, which trains nothing twice,
    so that an interrupted study continues where it was.

    Attributes:
        question: One sentence that ends with a question mark.
        seeds: The seeds of the tables on its page; none where the only seed is that of the scenario.
        cells: The cells of some seeds, in the order of their results.
        work: The results of one cell. It has to be a function of a module, since it is called in other processes.
        scenarios: The scenarios that `work` would run for a cell and settings: what is known before anything is run.
        tables: The tables by name, from the results of all cells.
        figures: The figures that are drawn from the tables.
        digits: Significant digits of the tables.
        shown: Name of the table that is printed, the one with the verdicts; "" prints none.
        unpriced: What `work` runs beyond `scenarios`, since it depends on results; "" if nothing.
    """

    question: str
    seeds: Sequence[int]
    cells: Callable[[Sequence[int]], Iterable[CellArguments]]
    work: Callable[..., Any]
    scenarios: Callable[..., Iterable[Scenario]]
    tables: Callable[[list[Any]], Mapping[str, pd.DataFrame]]
    figures: Sequence[TableFigure] = ()
    digits: int = 4
    shown: str = "gates"
    unpriced: str = ""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Choices of one run of a study.

    Attributes:
        seeds: None for those of the study.
        only: Words that are arguments of cells; empty for all cells. Words of one argument are alternatives.
        settings: `path=value` in every scenario.
        out: Where finished runs are found and go.
        jobs: Processes that train at a time.
        on: Where runs are trained: forks, processes, ray or ray:ADDRESS; None is the choice of each scenario.
        hours: No cell begins later than this after the start; None for no limit.
    """

    seeds: Sequence[int] | None = None
    only: Sequence[str] = ()
    settings: Sequence[str] = ()
    out: Path = Path("runs")
    jobs: int = 1
    on: str | None = None
    hours: float | None = None


def cells_of(study: Study, options: StudyOptions) -> list[CellArguments]:
    """The cells of these options.

    A cell is chosen if each of its arguments is among the words of `only` that are values of this argument in any cell.

    Errors: `ScenarioError` where such a word is no argument of any cell, and for seeds of a study without any.
    """
    if options.seeds is not None and not study.seeds:
        message = "this study has no seeds; use --set seed=N and --results for another one"
        raise ScenarioError([Problem(path="", message=message, source="--seeds")])
    cells = list(study.cells(study.seeds if options.seeds is None else options.seeds))
    places = {word: place for cell in reversed(cells) for place, word in reversed(_words(cell).items())}
    if unknown := [word for word in options.only if word not in places]:
        raise ScenarioError(
            [
                Problem(
                    path="",
                    message=f"no cell of this study has it; choose from: {', '.join(sorted(places)) or 'none'}"
                    + did_you_mean(word, places),
                    source=f"--only {word}",
                )
                for word in unknown
            ]
        )
    chosen: dict[tuple[int, str], set[str]] = {}
    for word in options.only:
        chosen.setdefault(places[word], set()).add(word)
    return [cell for cell in cells if all(_words(cell).get(place) in words for place, words in chosen.items())]


def _words(cell: CellArguments) -> dict[tuple[int, str], str]:
    """The texts among the arguments of a cell by their number, and among the fields of those that are records."""
    fields = {
        (nth, name): value
        for nth, argument in enumerate(cell)
        for name, value in (vars(argument) if is_dataclass(argument) else {"": argument}).items()
    }
    return {place: value for place, value in fields.items() if isinstance(value, str)}


def price(study: Study, options: StudyOptions) -> StudyCost:
    """The cost of the scenarios that are known beforehand and not finished, by a short timing.

    Errors: `ScenarioError` with everything that is wrong in any scenario.
    """
    from fedmem.studies.cost import cost_of
    from fedmem.studies.grid import Cell

    scenarios = {
        scenario.id: scenario
        for cell in cells_of(study, options)
        for scenario in study.scenarios(*cell, settings=options.settings)
    }
    cells = [Cell(setting=(), seed=scenario.seed, scenario=scenario) for scenario in scenarios.values()]
    return cost_of(cells, sorted({cell.seed for cell in cells}), options.out)


def run_study(
    study: Study, options: StudyOptions, report: Callable[[str], None] = lambda text: None
) -> Mapping[str, pd.DataFrame] | None:
    """The tables of a study; None where `hours` ended before the last cell began.

    Args:
        study: What is run.
        options: Its seeds and cells, and where they run.
        report: Called with a line after each cell.
    """
    cells = cells_of(study, options)
    results = _results(study, cells, options, report)
    if len(results) < len(cells):
        return None
    return study.tables([results[nth] for nth in range(len(cells))])


def write_study(study: Study, folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write the tables and figures of a study, and its page where the folder has the text of one."""
    from fedmem.studies.page_text import write_page

    write_results(folder, tables, study.figures, digits=study.digits)
    write_page(folder)


def _results(
    study: Study, cells: Sequence[CellArguments], options: StudyOptions, report: Callable[[str], None]
) -> dict[int, Any]:
    """The results of the cells that began in time, by their number; each in a fresh process."""
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 3600 * options.hours if options.hours is not None else None
    results: dict[int, Any] = {}
    # spawned, since torch does not survive a fork
    with trained_on(options.on), ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = list(enumerate(cells))
        running: dict[Future[Any], int] = {}
        while running or waiting:
            while waiting and len(running) < options.jobs and (end is None or time.monotonic() < end):
                nth, cell = waiting.pop(0)
                running[pool.submit(study.work, *cell, out=options.out, settings=options.settings)] = nth
            if not running:
                break
            for future in _wait_for_any(running):
                nth = running.pop(future)
                results[nth] = future.result()
                report(f"{len(results)} of {len(cells)} cells: {cell_text(cells[nth])}")
    return results


def _wait_for_any(running: Iterable[Future[Any]]) -> set[Future[Any]]:
    """The futures that are done, as soon as one is."""
    from concurrent.futures import FIRST_COMPLETED, wait

    return wait(running, return_when=FIRST_COMPLETED).done


def cell_text(cell: CellArguments) -> str:
    """A cell in a line of progress.

    >>> cell_text(("digits", 3)), cell_text(())
    ('digits, 3', 'all')
    """
    return ", ".join(map(str, cell)) or "all"
