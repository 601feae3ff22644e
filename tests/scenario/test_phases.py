"""Tests of `fedmem/scenario/phases.py` and `unfolding.py`: phases as scenarios."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.phases import Forget
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.unfolding import last_phase
from tests.scenario.scenario_helpers import SMALL

THEN = "then=[{rounds: 3, name: unlearn, forget: {kinds: [typical]}, client: {kind: sgd, lr: 0.5}}, {rounds: 2}]"


def parsed(*overrides: str) -> Scenario:
    return parse_scenario(SMALL, "small", overrides)


def test_the_last_phase_holds_all_others() -> None:
    scenario = parsed(THEN)
    first, second, third = scenario.phases
    assert [phase.rounds for phase in scenario.phases] == [6, 3, 2]
    assert [phase.dump()["client"]["lr"] for phase in scenario.phases] == [0.1, 0.5, 0.5]
    assert [phase.save.params for phase in scenario.phases] == [True, True, False]
    assert second.after is not None
    assert second.after.title == "phase 1 (unlearn)"
    assert (first.after, first.then, third.then) == (None, (), ())


def test_the_first_phase_has_the_id_that_it_has_alone() -> None:
    assert parsed(THEN).phases[0].id == parsed("save.params=true").id


def test_phases_with_the_same_beginning_share_it() -> None:
    one, other = (parsed(THEN, f"then[1].rounds={rounds}") for rounds in (2, 4))
    assert one.id != other.id
    assert [a.id == b.id for a, b in zip(one.phases, other.phases, strict=True)] == [True, True, False]


def test_ids_say_what_is_forgotten() -> None:
    assert parsed(THEN).id != parsed(THEN, "then[0].forget={}").id


def test_a_stored_phase_is_read_again() -> None:
    scenario = parsed(THEN)
    again = parse_scenario(scenario.to_yaml(), "other")
    assert again == scenario
    assert (again.id, [phase.id for phase in again.phases]) == (scenario.id, [phase.id for phase in scenario.phases])


@pytest.mark.parametrize("change", ["seed=5", "runs=6", "injections[0].per_client=3", "exclusion=remove"])
def test_a_stored_phase_keeps_its_federation(change: str) -> None:
    """Other coins than those with which the models were trained would show no memorisation at all."""
    text = parsed(THEN).to_yaml()
    with pytest.raises(ScenarioError, match=r"phase 2 has another .* than the phase that it follows"):
        parse_scenario(text, "other", [change])
    assert parse_scenario(text, "other", ["client.lr=0.3"]).phases[1].id == parsed(THEN).phases[1].id


def test_every_phase_and_repetition_draws_its_own() -> None:
    seeds = [phase.training_seed for phase in parsed(THEN).phases]
    seeds += [phase.training_seed for phase in parsed(THEN, "repeat=1").phases]
    assert seeds[0] == parsed().seed
    assert len(set(seeds)) == 6
    assert {phase.seed for phase in parsed(THEN).phases} == {0}


def test_observed_rounds_are_those_of_the_phase() -> None:
    scenario = parsed(THEN, "observe={every: 4, rounds: [5]}", "then[1].observe={rounds: [-2]}")
    assert [phase.observed_rounds for phase in scenario.phases] == [(0, 4, 5, 6), (0, 3), (0, 1, 2)]


def test_a_scenario_made_in_python_is_unfolded_too() -> None:
    scenario = parsed("save.params=true")
    made = scenario.model_copy(update={"then": parsed_then(scenario)})
    assert last_phase(made).phases[0].id == scenario.id
    assert last_phase(last_phase(made)) == last_phase(made)


def parsed_then(scenario: Scenario) -> tuple[object, ...]:
    return Scenario(**{**scenario.dump(), "then": [{"rounds": 2}]}).then


@pytest.mark.parametrize("forget", [Forget(), Forget(kinds=("a",)), Forget(clients=(0,))])
def test_forgetting_something_is_true(forget: Forget) -> None:
    assert bool(forget) == bool(forget.kinds or forget.clients)
