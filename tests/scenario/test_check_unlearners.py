"""Tests of `fedmem/scenario/check_unlearners.py`: every refusal names its place and the remedy."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.scenario.scenario_helpers import SMALL

ASCENT = "{kind: gradient_ascent}"


def parsed(*overrides: str) -> Scenario:
    return parse_scenario(SMALL, "small", ("population=20", *overrides))


def then(unlearner: str = ASCENT, forget: str = "{kinds: [typical]}", more: str = "") -> str:
    return f"then=[{{rounds: 2, forget: {forget}, unlearner: {unlearner}{more}}}]"


def test_a_phase_with_an_unlearner_is_another_phase() -> None:
    plain, fine = parsed("then=[{rounds: 2, forget: {kinds: [typical]}}]"), parsed(then("{kind: fine_tune}"))
    assert plain.id != fine.id
    assert plain.phases[0].id == fine.phases[0].id
    assert parse_scenario(fine.to_yaml(), "other") == fine


def test_a_later_phase_does_not_inherit_it() -> None:
    scenario = parsed(then()[:-1] + ", {rounds: 1}]")
    assert [phase.unlearner is None for phase in scenario.phases] == [True, False, True]


AGAIN = "}, {rounds: 1, forget: {clients: [0]}, unlearner: {kind: fed_eraser}"
STORED = "save={models: {rounds: [1, 2, 3, 4, 5, 6], levels: [local, global]}}"


@pytest.mark.parametrize(
    ("overrides", "path", "says"),
    [
        ((f"unlearner={ASCENT}",), "unlearner", "acts before a phase; write it below then"),
        ((then(forget="{}"),), "then[0].unlearner", "has nothing to forget; write forget"),
        (
            (
                "then=[{rounds: 1, forget: {kinds: [typical]}}, "
                "{rounds: 1, forget: {kinds: [typical]}, unlearner: {kind: fine_tune}}]",
            ),
            "then[1].unlearner",
            "earlier phases forgot the same",
        ),
        ((then(), "population=0"), "then[0].unlearner", "population is 0; write population: 100"),
        ((then("{kind: retrian}"),), "then[0].unlearner.kind", "did you mean 'retrain'"),
        ((then("{kind: neggrad}"),), "then[0].unlearner.kind", "did you mean 'gradient_ascent'"),
        ((then("{kind: fed_eraser}"),), "then[0].unlearner", "rounds: [1, 2, 3, 4, 5], levels: [local, global]"),
        ((then("{kind: pga}"),), "then[0].unlearner", "rounds: [6], levels: [local]"),
        (
            (
                "observe.every=1",
                STORED,
                then(more=AGAIN),
            ),
            "then[1].unlearner",
            "use it in the first phase of `then`",
        ),
        (("estimators=[{kind: unlearning}]",), "estimators[0]", "write it below `then`"),
    ],
)
def test_refused(overrides: tuple[str, ...], path: str, says: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parsed(*overrides)
    problems = {problem.path: problem.message for problem in caught.value.problems}
    assert says in problems[path]


def test_stored_models_of_some_runs_are_not_enough() -> None:
    assert parsed("observe.every=1", STORED, then("{kind: fed_eraser}")).unlearner is not None
    with pytest.raises(ScenarioError, match="of all runs before the phase"):
        parsed("observe.every=1", STORED, "save.models.runs=2", then("{kind: fed_eraser}"))


@pytest.mark.parametrize("unlearner", ["fed_eraser", "pga"])
@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("{kind: fedprox}", "fedprox of the phase before sends mu beside the model"),
        ("{kind: scaffold}", "sends linear:w beside the model"),
        ("{kind: 'flwr.serverapp.strategy:FedProx'}", "declares no rule"),
    ],
)
def test_more_than_the_model_was_sent(unlearner: str, strategy: str, says: str) -> None:
    fields = ("observe.every=1", STORED, f"strategy={strategy}", then(f"{{kind: {unlearner}}}"))
    with pytest.raises(ScenarioError) as caught:
        parsed(*fields)
    (problem,) = caught.value.problems
    assert problem.path == "then[0].unlearner"
    assert says in problem.message


def test_the_strategy_of_the_phase_before_decides() -> None:
    """The rounds that follow the unlearner may have any strategy."""
    fields = ("observe.every=1", STORED, then("{kind: pga}", more=", strategy: {kind: fedprox}"))
    assert parsed(*fields).unlearner is not None
    assert parsed("strategy={kind: fedprox}", then()).unlearner is not None
    momentum = ("observe.every=1", STORED, "strategy={kind: fedavgm}", then("{kind: fed_eraser}"))
    assert parsed(*momentum).unlearner is not None
