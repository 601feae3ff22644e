"""The cost of a study before it is run: runs, hours and memory, by the plans of its scenarios and a short timing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fedmem.contracts.events import Event, RoundFinished
from fedmem.errors import FedmemError, Problem, ScenarioError
from fedmem.studies.feasibility import FeasibleCell, problems_of_results, try_cells
from fedmem.studies.grid import Cell

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.execution.plan import Plan
    from fedmem.scenario.scenario import Scenario

TIMED_ROUNDS = 3
"""Rounds of a timing: the first compiles, the second trains, the third is observed as well."""

TIMED_STEPS = 20_000
"""Steps of a timing, about; it takes fewer runs where one run has so many."""


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """The work of a study and its cost.

    Attributes:
        scenarios: Settings times seeds; `finished` of them are there already and cost nothing.
        runs: Federations that are trained, over all scenarios that are missing.
        steps: Their local steps.
        seconds: Time of one process that does all of it alone; NaN where nothing could be timed.
        processes: How many work at once.
        memory: Bytes of the largest scenario at its peak, in one process.
        disk: Bytes of all evidence.
        timed_runs: How many runs were timed.
    """

    scenarios: int
    finished: int
    runs: int
    steps: int
    seconds: float
    processes: int
    memory: int
    disk: int
    timed_runs: int


def cost_of(
    cells: Sequence[Cell], seeds: Sequence[int], out: Path | str | None, problems: Sequence[Problem] = ()
) -> StudyCost:
    """The cost of these cells, where there are no `problems` with others.

    One scenario of each data set and model is timed; others are scaled by their steps. Scenarios that are finished in
    `out` cost nothing.

    Errors: `ScenarioError` with these problems and everything that is wrong in any cell.
    """
    from fedmem.execution.auto import workers_of
    from fedmem.execution.plan import plan
    from fedmem.execution.run import folder_of
    from fedmem.results.folder import is_finished

    missing = [cell for cell in cells if out is None or not is_finished(folder_of(cell.scenario, out))]
    seconds = runs = steps = memory = disk = timed_runs = 0.0
    rates: dict[str, _Timing] = {}
    results: list[tuple[Cell, list[Problem]]] = []
    for cell, result in try_cells(missing):
        if not isinstance(result, FeasibleCell):
            results.append((cell, result))
        if results or problems or not isinstance(result, FeasibleCell):
            continue
        scenario = result.scenario
        cell_plan = plan(scenario, result.federation)
        key = _text(scenario)
        if key not in rates:
            rates[key] = _time_rounds(scenario, result.federation, cell_plan)
            timed_runs += rates[key].runs
        seconds += rates[key].seconds_of(cell_plan)
        runs += cell_plan.runs + cell_plan.pilots
        steps += cell_plan.steps
        memory = max(memory, sum(cell_plan.memory[cell_plan.moment].values()))
        disk += sum(cell_plan.disk.values())
    if results or problems:
        raise ScenarioError([*problems, *problems_of_results(results, seeds)])
    processes = max((workers_of(cell.scenario) for cell in missing), default=1)
    return StudyCost(
        scenarios=len(cells),
        finished=len(cells) - len(missing),
        runs=int(runs),
        steps=int(steps),
        seconds=seconds,
        processes=min(processes, max(1, len(missing))),
        memory=int(memory),
        disk=int(disk),
        timed_runs=int(timed_runs),
    )


def scenario_seconds(scenario: Scenario, federation: Federation, scenario_plan: Plan) -> tuple[float, int]:
    """Seconds that one process needs for a scenario, and how many runs were timed for it; NaN where none could be."""
    timing = _time_rounds(scenario, federation, scenario_plan)
    return timing.seconds_of(scenario_plan), timing.runs


UNTIMED = (
    "unknown: fewer than 3 rounds, a pilot run and the engine flower are not timed. Run one scenario, and fedmem runs "
    "says how long it took"
)


def time_text(seconds: float, processes: int, timed_runs: int) -> str:
    """Seconds of one process as the time of several, and how it was found."""
    hours = seconds / processes / 3600
    amount = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, math.ceil(60 * hours))} min"
    return (
        f"about {amount} in {processes} process{'es' * (processes > 1)}, without probes, estimates and figures: "
        f"3 rounds of {timed_runs} runs were timed on this machine just now, and the rest is scaled by its steps and "
        "observed models"
    )


def price_text(cost: StudyCost, processes: int, times: int = 1) -> str:
    """The time of a study that is run so many times in so many processes, and how it was found."""
    if not cost.runs:
        return "none: everything is finished"
    if math.isnan(cost.seconds):
        return UNTIMED
    return time_text(times * cost.seconds, processes, cost.timed_runs)


def _text(scenario: Scenario) -> str:
    """The settings that mainly decide the time of a step, as text."""
    content = scenario.dump()
    return json.dumps([content["dataset"], content["model"]], sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class _Timing:
    """Seconds of one local step, and of looking at one model; NaN where they are not known."""

    step: float
    look: float
    runs: int

    def seconds_of(self, cell_plan: Plan) -> float:
        """The time of a scenario in one process, in seconds."""
        return self.step * cell_plan.steps + self.look * sum(cell_plan.models.values())


@dataclass(kw_only=True)
class _Clock:
    """A listener that notes when rounds end."""

    ends: list[float] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundFinished):
            self.ends.append(time.perf_counter())


def _time_rounds(scenario: Scenario, federation: Federation, cell_plan: Plan) -> _Timing:
    """Train a few rounds of some runs, and throw them away."""
    from fedmem.execution.bank import simulate
    from fedmem.federation.build import build

    rounds = min(scenario.rounds, TIMED_ROUNDS)
    if scenario.speed.engine == "flower" or scenario.has_pilot or rounds < TIMED_ROUNDS:
        return _Timing(step=math.nan, look=math.nan, runs=0)
    steps = cell_plan.steps / (cell_plan.runs * cell_plan.rounds)
    max_runs = min(cell_plan.runs, scenario.speed.shard, federation.audit.runs)
    runs = max(1, min(max_runs, int(TIMED_STEPS / max(1.0, TIMED_ROUNDS * steps))))
    short = scenario.model_copy(
        update={
            "rounds": rounds,
            "observe": scenario.observe.model_copy(update={"every": None, "rounds": ()}),
            "probes": (),
            "speed": scenario.speed.model_copy(update={"workers": 1}),
        }
    )
    clock = _Clock()
    try:
        # with the references, which the federation of a plan does not have
        whole = build(scenario.model_copy(update={"runs": federation.audit.runs}))
        simulate(short, whole, emit=clock, runs=range(runs))
    except FedmemError:
        return _Timing(step=math.nan, look=math.nan, runs=0)  # reported when it is run
    first, second, third = clock.ends
    step = (second - first) / max(1.0, runs * steps)
    models = runs * (cell_plan.cohort + 1)
    return _Timing(step=step, look=max(0.0, third - second - (second - first)) / models, runs=runs)
