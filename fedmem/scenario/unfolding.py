"""From a scenario with phases that follow it to the scenario of the last phase, which holds all the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedmem.errors import Problem, ScenarioError
from fedmem.scenario import checks
from fedmem.scenario.derived import FIXED
from fedmem.scenario.observing import Observe
from fedmem.scenario.phases import After, Phase
from fedmem.scenario.scenario import Scenario


def last_phase(scenario: Scenario) -> Scenario:
    """The scenario of the last phase; one without `then` is its own.

    Its fields are those of the phase: `rounds`, `client` and so on. `after` holds the phase before, as a whole. Each
    phase but the last stores its final models, from which the next one starts, and otherwise gives what it gives alone.

    Errors: `ScenarioError` with the place of each problem, such as `then[0].client.lr`. Also for a stored phase that
    was changed so that it has other data or inclusion than the phase before.

    >>> text = {"name": "x", "rounds": 3, "clients": 2, "dataset": {"kind": "synthetic"}, "model": {"kind": "mlp"}}
    >>> last = last_phase(Scenario(**text, then=[{"rounds": 2, "client": {"kind": "sgd", "lr": 0.5}}]))
    >>> last.rounds, last.client.lr, last.previous.rounds, last.previous.save.params
    (2, 0.5, 3, True)
    """
    _require_one_federation(scenario)
    current = scenario
    for position, phase in enumerate(scenario.then):
        before = current.model_copy(update={"then": (), "save": current.save.model_copy(update={"params": True})})
        current = _next_phase(before, phase, position)
    if current is not scenario:
        current._origin, current._notes = scenario._origin, scenario._notes
        current._derived_from = scenario._derived_from
    return current


def _require_one_federation(scenario: Scenario) -> None:
    """All phases have the same data, inclusion and owners."""
    if scenario.after is None or scenario.previous is None:
        return
    own, before = scenario.dump(), scenario.previous.dump()
    problems = [
        Problem(
            path=name,
            message=f"{scenario.after.title} has another {name} than the phase that it follows, so that examples would "
            "not be those that its models were trained with. Change the file with `then` and run that",
        )
        for name in FIXED
        if own[name] != before[name]
    ]
    if problems:
        raise ScenarioError([scenario.place(problem) for problem in problems])


def _next_phase(before: Scenario, phase: Phase, position: int) -> Scenario:
    """The scenario of a phase that follows another."""
    inherited = {name: getattr(before, name) for name in type(before).model_fields}
    number = 1 if before.after is None else before.after.phase + 1
    values: dict[str, Any] = inherited | phase.given_fields()
    values |= {
        "rounds": phase.rounds,
        "unlearner": phase.unlearner,
        "observe": _observe(before.observe, phase),
        "save": phase.save.count_from_start(phase.rounds),
        "after": After(
            scenario=before.dump(), phase=number, name=phase.name, forget=phase.forget, relearn=phase.relearn
        ),
    }
    problems = checks.problems(values)
    if problems:
        given = {"rounds", "observe", "save", "unlearner", *phase.given_fields()}
        raise ScenarioError([before.place(_in_phase(problem, position, given)) for problem in problems])
    return Scenario(**values)


def _observe(observe: Observe, phase: Phase) -> Observe:
    """When models are looked at: as the phase says, or as before, without rounds that may not exist."""
    if phase.observe is not None:
        return phase.observe.model_copy(update={"rounds": phase.observe.count_from_start(phase.rounds)})
    every = None if observe.every is None else min(observe.every, phase.rounds)
    return observe.model_copy(update={"rounds": (), "every": every})


def _in_phase(problem: Problem, position: int, given: set[str]) -> Problem:
    """A problem at its place in the file."""
    field = problem.path.partition(".")[0].partition("[")[0]
    if field == "after":
        return replace(problem, path=problem.path.replace("after", f"then[{position}]", 1))
    return replace(problem, path=f"then[{position}].{problem.path}") if field in given else problem
