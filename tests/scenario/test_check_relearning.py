"""Tests of `fedmem/scenario/check_relearning.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.loading import parse_scenario
from fedmem.scenario.scenario import Scenario
from tests.scenario.scenario_helpers import SMALL

FORGET = "{rounds: 3, forget: {kinds: [typical]}}"
RELEARN = "{rounds: 2, relearn: {kinds: [typical]}, estimators: [{kind: relearning}], probes: []}"


def parsed(*phases: str, overrides: tuple[str, ...] = ()) -> Scenario:
    return parse_scenario(SMALL, "small", [f"then=[{', '.join(phases)}]", *overrides])


def test_forgetting_and_learning_again_is_a_scenario() -> None:
    last = parsed(FORGET, RELEARN)
    assert last.after is not None
    assert last.after.relearn.kinds == ("typical",)
    assert parse_scenario(last.to_yaml(), "again").id == last.id


def test_ids_say_what_is_learnt_again_and_only_that() -> None:
    with_field = parsed(FORGET, "{rounds: 2, relearn: {}}")
    assert with_field.id == parsed(FORGET, "{rounds: 2}").id
    again = parsed(FORGET, "{rounds: 2, relearn: {kinds: [typical]}, estimators: [], probes: []}")
    plain = parsed(FORGET, "{rounds: 2, estimators: [], probes: []}")
    assert again.id != plain.id
    assert again.previous is not None
    assert plain.previous is not None
    assert again.previous.id == plain.previous.id


@pytest.mark.parametrize(
    ("phases", "part"),
    [
        ([RELEARN], r"then\[0\].relearn.kinds\[0\].*did not forget typical"),
        ([FORGET, RELEARN.replace("[typical]", "[typica]")], r"then\[1\].relearn.kinds\[0\].*did you mean"),
        ([FORGET, "{rounds: 1}", RELEARN], r"then\[2\].relearn.kinds\[0\].*did not forget"),
        ([FORGET, RELEARN, "{rounds: 1}"], r"then\[2\].relearn.*make that phase the last"),
        ([FORGET, RELEARN.replace("relearn:", "forget: {kinds: [typical]}, relearn:")], "also in forget"),
        ([FORGET, RELEARN.replace("relearn:", "unlearner: {kind: fine_tune}, relearn:")], "belongs to a phase that"),
        ([FORGET, RELEARN.replace("relearning}", "consistency}")], r"then\[1\].estimators\[0\].*every run trains on"),
        ([FORGET, RELEARN.replace("probes: []", "probes: [{kind: client_gap}]")], r"then\[1\].probes\[0\]"),
        ([FORGET, "{rounds: 2, estimators: [{kind: relearning}]}"], "learns none again"),
        ([FORGET.replace("forget:", "observe: {levels: [local]}, forget:"), RELEARN], "not observed; add global"),
        ([FORGET, FORGET, RELEARN], r"then\[2\].estimators\[0\].*already forgotten typical"),
        ([FORGET, "{rounds: 1}", FORGET, RELEARN], r"then\[3\].estimators\[0\].*already forgotten typical"),
    ],
)
def test_what_cannot_be_learnt_again_is_refused(phases: list[str], part: str) -> None:
    with pytest.raises(ScenarioError, match=part):
        parsed(*phases)
