"""Tests of `fedmem/scenario/shortened.py`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fedmem.errors import ScenarioError
from fedmem.probes.leakage import Leakage
from fedmem.scenario.loading import load_scenario, parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.narrowing import instance

TEXT = """\
rounds: 20
clients: 3
dataset: {kind: digits}
model: {kind: mlp, hidden: [8]}
population: 20
injections: [{kind: typical, per_client: 1}]
observe: {every: 5, rounds: [2, 7, -3, -12]}
probes:
  - {kind: utility, every: 10}
  - {kind: leakage, rounds: [2, 7, 20], attack: {kind: inverting_gradients}}
"""


def loaded(*overrides: str, text: str = TEXT) -> Scenario:
    return parse_scenario(text, overrides=overrides)


def written(rounds: int, every: int, at: Sequence[int], utility: int, leakage: Sequence[int]) -> Scenario:
    """The scenario as somebody would write it with so many rounds."""
    text = TEXT.replace("rounds: 20", f"rounds: {rounds}", 1).replace("[2, 7, -3, -12]", str(at))
    text = text.replace("every: 5", f"every: {every}").replace("every: 10", f"every: {utility}")
    return parse_scenario(text.replace("rounds: [2, 7, 20]", f"rounds: {leakage}"))


@pytest.mark.parametrize(
    ("rounds", "every", "at", "utility", "leakage"),
    [
        (8, 5, [2, 7, -3], 8, [2, 7]),
        (4, 4, [2, -3], 4, [2]),
        (1, 1, [], 1, [1]),
        (12, 5, [2, 7, -3, -12], 10, [2, 7]),
    ],
)
def test_shortened_scenario_is_the_one_written_for_fewer_rounds(
    rounds: int, every: int, at: Sequence[int], utility: int, leakage: Sequence[int]
) -> None:
    shortened, expected = loaded(f"rounds={rounds}"), written(rounds, every, at, utility, leakage)
    assert shortened == expected
    assert shortened.id == expected.id
    assert shortened.notes


def test_note_names_everything_that_was_cut() -> None:
    (note,) = loaded("rounds=4").notes
    assert note == (
        "the run has 4 rounds instead of 20, so observe.every is 4 instead of 5; observe.rounds leaves out 7, -12; "
        "probes[0].every is 4 instead of 10; probes[1].rounds leaves out 7, 20"
    )


@pytest.mark.parametrize("rounds", [20, 21, 40])
def test_scenario_that_is_not_shortened_stays_as_it_is(rounds: int) -> None:
    scenario = loaded(f"rounds={rounds}")
    assert scenario.notes == ()
    assert scenario.observe.every == 5
    assert instance(scenario.probes[1], Leakage).rounds == (2, 7, 20)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("[2, 7, -3, -12]", "[2, 7, 25]", "observe.rounds[2]"),
        ("[2, 7, -3, -12]", "[2, 7, -22]", "observe.rounds[2]"),
        ("every: 5", "every: 21", "observe.every"),
        ("every: 10", "every: 21", "probes[0].every"),
        ("[2, 7, 20]", "[2, 21]", "probes[1].rounds"),
    ],
)
def test_file_that_is_wrong_by_itself_stays_an_error(old: str, new: str, path: str) -> None:
    text = TEXT.replace(old, new)
    for overrides in ((), ("rounds=8",)):
        with pytest.raises(ScenarioError) as caught:
            loaded(*overrides, text=text)
        assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize(
    "override",
    ["observe.rounds=[2, 7]", "observe.rounds[0]=7", "observe.every=5", "probes[0].every=5", "probes[1].rounds=[7]"],
)
def test_rounds_given_by_an_override_stay_an_error(override: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        loaded("rounds=4", override)
    assert [problem.source for problem in caught.value.problems] == [f"--set {override}"]


def test_file_with_too_few_rounds_stays_an_error() -> None:
    for text in (TEXT.replace("rounds: 20", "rounds: 4", 1), TEXT.replace("rounds: 20\n", "", 1)):
        for overrides in ((), ("client.lr=0.1",)):
            with pytest.raises(ScenarioError):
                loaded(*overrides, text=text)


def test_short_quickstart_needs_one_change() -> None:
    scenario = load_scenario("quickstart", ["rounds=4"])
    assert scenario.observed_rounds == (0, 1, 2, 3, 4)
    assert len(scenario.notes) == 1
