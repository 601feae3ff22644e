"""Search among the settings of a sweep: Optuna proposes them by what was found, for several objectives at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmem.contracts.events import Listener
from fedmem.contracts.measurement import value_text
from fedmem.errors import Problem, RunError, ScenarioError
from fedmem.execution.backends import backend_of
from fedmem.execution.devices import auto_decided_once, device_of_workers
from fedmem.reporting.metric_names import check_metric
from fedmem.results.folder import one_at_a_time
from fedmem.seeding import stream
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import mean_of
from fedmem.studies.feasibility import check_search
from fedmem.studies.grid import Cell, Setting, cross
from fedmem.studies.quantities import Series
from fedmem.studies.sweep_file import Axis, Search, Sweep
from fedmem.studies.sweep_folder import Failures, SweptRuns, folder_of, make_comparison, run_cells, write_results
from fedmem.studies.tables import put, typed_settings

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


def search(
    plan: Sweep,
    base: Path,
    *,
    out: Path | str,
    jobs: int | None,
    force: bool,
    retry_failed: bool,
    listeners: Sequence[Listener],
    on: str | None = None,
) -> SweptRuns:
    """Run the search of a sweep until it has its trials; see `sweep` for arguments, guarantees and errors.

    A trial is a setting with all seeds, its objectives are means over them. Settings of one batch are proposed before
    any of them is known. Every value of each axis, and both ends of a range, are checked first. A trial whose runs
    fail, or whose combination of values is impossible, has failed and counts. Another process at the same search is
    waited for.
    """
    search_options = plan.search
    assert search_options is not None
    options = [axis.options_to_check() for axis in plan.axes]
    possible = check_search(base, options, plan.all_seeds, plan.overrides, out=None if force else out)
    first = cross(base, [possible], plan.all_seeds, plan.overrides)
    is_fixed = not any(axis.name.startswith(("estimators", "probes")) for axis in plan.axes)
    for text in search_options.directions if is_fixed else ():
        metric = text.partition(",")[0].strip()
        check_metric(metric, [cell.scenario for cell in first], path="search.directions")
    folder = folder_of(plan, first[0], out)
    decided = auto_decided_once(lambda: device_of_workers(backend_of(on)))
    with decided, one_at_a_time(folder / ".study.lock"):
        how: dict[str, Any] = {"out": out, "jobs": jobs, "force": force, "listeners": listeners, "on": on}
        return _run_trials(plan, base, folder, how, retry_failed=retry_failed)


def _run_trials(plan: Sweep, base: Path, folder: Path, how: Mapping[str, Any], *, retry_failed: bool) -> SweptRuns:
    """All trials, in the process that holds the study."""
    search_options, out = plan.search, how["out"]
    assert search_options is not None
    failures = Failures(folder)
    study, storage = _study(folder, search_options)
    try:
        cells: dict[str, Cell] = {}
        reasons: dict[int, str] = {}
        nulls: dict[int, list[float]] = {}
        for trials in _batches(study, plan, search_options):
            settings = {trial.number: _setting(plan, trial.params) for trial in trials}
            cells_by_trial, wrong_trials = _cross_settings(base, plan, settings)
            cells |= {cell.scenario.id: cell for batch in cells_by_trial.values() for cell in batch}
            # the same setting may be proposed twice
            unique_cells = {cell.scenario.id: cell for batch in cells_by_trial.values() for cell in batch}
            run_cells(list(unique_cells.values()), failures, **how, retry_failed=False)
            if retry_failed:
                run_cells(list(unique_cells.values()), failures, **how, retry_failed=True)
            for trial in trials:
                trial_cells, values = cells_by_trial[trial.number], None
                reason = wrong_trials.get(trial.number) or _causes(trial_cells, failures)
                if not reason:
                    comparison = make_comparison(trial_cells, out)
                    values = objectives(comparison, search_options.directions)
                    nulls[trial.number] = _nulls(comparison, search_options.directions)
                    missing = [
                        name for name, value in zip(search_options.directions, values, strict=True) if math.isnan(value)
                    ]
                    reason = f"no value of {'; '.join(missing)}" if missing else ""
                if reason:
                    reasons[trial.number] = reason
                _report_trial(study, trial, values)
        typed = typed_settings(tuple(_setting(plan, trial.params) for trial in study.trials))
        rows = [_row(plan, trial, setting, reasons) for trial, setting in zip(study.trials, typed, strict=True)]
        finished = {trial.number: trial.values for trial in study.trials if trial.state.name == "COMPLETE"}
        floors = np.fmax.reduce(np.array([[-math.inf] * len(search_options.directions), *nulls.values()]))
        front = find_front(finished, floors.tolist(), list(search_options.directions.values()))
        put(folder, "trials", [{**row, "front": row["trial"] in front} for row in rows])
    finally:
        storage.engine.dispose()
    write_results(folder, list(cells.values()), out, failures.by_run)
    failed_cells = {key: why for key, why in failures.by_run.items() if key in cells}
    return SweptRuns(path=folder, cells=tuple(cells.values()), failed=failed_cells, failed_trials=reasons)


def _causes(cells: Sequence[Cell], failures: Failures) -> str:
    """Why runs of a trial failed, each cause once with its seeds; empty where none did."""
    seeds_by_cause: dict[str, list[int]] = {}
    for cell in cells:
        if cell.scenario.id in failures.by_run:
            seeds_by_cause.setdefault(failures.by_run[cell.scenario.id], []).append(cell.seed)
    return "; ".join(
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: {cause}" for cause, seeds in seeds_by_cause.items()
    )


def _study(folder: Path, search_options: Search) -> tuple[Study, RDBStorage]:
    """The study in its file, and what holds the file open."""
    try:
        import optuna
    except ImportError as error:
        raise RunError("a search needs Optuna; install it with: pip install 'fedmem[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / 'study.db').resolve()}")
    directions = list(search_options.directions.values())
    study = optuna.create_study(
        storage=storage, study_name=search_options.study, directions=directions, load_if_exists=True
    )
    return study, storage


def _batches(study: Study, plan: Sweep, search_options: Search) -> Iterator[list[FrozenTrial]]:
    """The trials, batch by batch: known ones again, whose runs are there, and new ones until there are enough.

    A batch begins at a multiple of its size, so that where a search was interrupted changes nothing.
    """
    distributions = {axis.name: _distribution(axis) for axis in plan.axes}
    for start in range(0, search_options.trials, search_options.batch):
        numbers = range(start, min(start + search_options.batch, search_options.trials))
        for number in numbers[max(0, len(study.trials) - start) :]:
            study.sampler = _sampler(search_options, plan.all_seeds[0], number)
            study.ask(fixed_distributions=distributions)
        yield [study.trials[number] for number in numbers]


def _sampler(search_options: Search, seed: int, number: int) -> BaseSampler:
    """A sampler of its own for each trial, so that what it draws does not depend on where the search began again."""
    import optuna

    draw = int(stream(seed, f"search {search_options.study}", round_number=number).integers(2**31))
    kinds = {
        "tpe": optuna.samplers.TPESampler,
        "nsga2": optuna.samplers.NSGAIISampler,
        "random": optuna.samplers.RandomSampler,
    }
    sampler: BaseSampler = kinds[search_options.sampler](seed=draw)
    return sampler


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.range is None:
        return CategoricalDistribution([_choice(setting) for setting in axis.options()])
    low, high = axis.range
    if axis.is_whole_numbers:
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=axis.scale == "log")


def _choice(setting: Setting) -> str:
    return "; ".join(f"{path}={value}" for path, value in setting)


def _setting(plan: Sweep, params: Mapping[str, Any]) -> Setting:
    """The setting that a trial changes."""
    changes: list[tuple[str, str]] = []
    for axis in plan.axes:
        if axis.range is not None:
            changes.append((axis.name, axis.number(float(params[axis.name]))))
        else:
            changes += next(setting for setting in axis.options() if _choice(setting) == params[axis.name])
    return tuple(changes)


def _cross_settings(
    base: Path, plan: Sweep, settings: Mapping[int, Setting]
) -> tuple[dict[int, tuple[Cell, ...]], dict[int, str]]:
    """The cells of each trial, and why the settings of some are no scenario."""
    cells_by_trial: dict[int, tuple[Cell, ...]] = {}
    wrong_trials: dict[int, str] = {}
    for number, setting in settings.items():
        try:
            cells_by_trial[number] = cross(base, [setting], plan.all_seeds, plan.overrides)
        except ScenarioError as error:
            cells_by_trial[number] = ()
            wrong_trials[number] = "; ".join(str(problem) for problem in error.problems)
    return cells_by_trial, wrong_trials


def _report_trial(study: Study, trial: FrozenTrial, values: Sequence[float] | None) -> None:
    """Once for each trial: one that failed stays so for the search, also where its runs are retried later."""
    import optuna

    if trial.state.is_finished():
        return
    if values is None or any(math.isnan(value) for value in values):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, list(values))


def objectives(comparison: Comparison, directions: Mapping[str, str]) -> list[float]:
    """The mean over seeds of each objective, for a single setting.

    Errors: `ScenarioError` where an objective is not exactly one quantity of the runs.
    """
    return [mean_of(quantity_of(comparison, text).values[0]).value for text in directions]


def quantity_of(comparison: Comparison, text: str) -> Series:
    """The one quantity that these words mean: its metric, then its kind, level and labels.

    A label is written as its value or as `name=value`. Without a level that of the aggregate; of several variants the
    one without labels, if there is one.
    """
    metric, *words = (part.strip() for part in text.split(","))
    matches = [
        series
        for series in comparison.series
        if (q := series.quantity).metric == metric
        and set(words)
        <= {q.kind, q.level, *q.parts, *(f"{name}={value_text(value)}" for name, value in q.labels.items)}
        and (q.level in words or q.level == "global")
    ]
    unlabelled = [series for series in matches if not set(series.quantity.parts) - set(words)]
    selection = unlabelled if len(unlabelled) == 1 else matches
    if len(selection) != 1:
        meant = sorted(
            ", ".join(filter(None, (s.quantity.metric, s.quantity.kind, s.quantity.level, *s.quantity.parts)))
            for s in matches or comparison.series
        )
        what = f"means {len(selection)} quantities" if selection else "means nothing that the runs measure"
        message = f"{text!r} {what}; name one of: {'; '.join(meant[:12])}{'; …' * (len(meant) > 12)}"
        raise ScenarioError([Problem(path="search.directions", message=message)])
    return selection[0]


def _nulls(comparison: Comparison, directions: Mapping[str, str]) -> list[float]:
    """The mean over seeds of the value without memorisation of each objective; NaN where it has none."""
    return [mean_of(quantity_of(comparison, text).null[0]).value for text in directions]


def find_front(
    values: Mapping[int, Sequence[float]], floors: Sequence[float], directions: Sequence[str]
) -> frozenset[int]:
    """The trials than which no other is better in one objective and no worse in all.

    A value to be minimised that is below its floor, the value without memorisation, counts as the floor.

    >>> sorted(find_front({0: [0.94, 0.0], 1: [0.46, -0.03]}, [-math.inf, 0.0], ["maximize", "minimize"]))
    [0]
    >>> sorted(find_front({0: [0.94, 0.0], 1: [0.46, -0.03]}, [-math.inf] * 2, ["maximize", "minimize"]))
    [0, 1]
    """
    if not values:
        return frozenset()
    sides = zip(np.array(list(values.values())).reshape(len(values), -1).T, floors, directions, strict=True)
    costs = np.array(
        [-side if direction == "maximize" else np.maximum(side, floor) for side, floor, direction in sides]
    )
    return frozenset(
        number
        for place, number in enumerate(values)
        if not ((costs <= costs[:, [place]]).all(0) & (costs < costs[:, [place]]).any(0)).any()
    )


def _row(
    plan: Sweep, trial: FrozenTrial, setting: Mapping[str, int | float | str], reasons: Mapping[int, str]
) -> dict[str, Any]:
    """A trial as a row: what it set, numbers as numbers, its objectives, and the reason if it failed."""
    assert plan.search is not None
    has_failed = trial.state.name == "FAIL"
    retried = "its runs failed when it was tried, and were retried since" if has_failed else ""
    values = trial.values or [math.nan] * len(plan.search.directions)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "reason": reasons.get(trial.number, retried),
        **setting,
        **dict(zip(plan.search.directions, values, strict=True)),
    }
