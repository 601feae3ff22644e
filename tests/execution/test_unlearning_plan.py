"""Tests of `fedmem/execution/unlearning_plan.py`: counts before the training are those of the run."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.execution.plan import plan
from fedmem.execution.unlearning_plan import UnlearningWork
from fedmem.scenario.scenario import Scenario
from tests.execution.test_unlearning import phase
from tests.tiny import tiny


def work(scenario: Scenario) -> UnlearningWork:
    return plan(scenario).unlearning


@pytest.mark.parametrize(
    ("unlearner", "steps", "trainings"),
    [
        ({"kind": "fine_tune"}, 0, 0),
        ({"kind": "gradient_ascent", "steps": 7}, 2 * 7, 0),
        ({"kind": "pga", "steps": 5}, 2 * 5, 0),
        # rounds 1 and 3 of 5 clients in 4 runs
        ({"kind": "fed_eraser"}, 0, 2 * 5 * 4),
    ],
)
def test_client_1_forgets_in_half_of_four_runs(unlearner: dict[str, Any], steps: int, trainings: int) -> None:
    found = work(phase(unlearner))
    assert (found.clients, found.steps, found.trainings) == (2, steps, trainings)
    # 4 forgotten and 5 typical examples, 100 test examples
    assert found.evidence == 4 * (9 + 100)


def test_without_an_unlearner_there_is_no_work() -> None:
    assert work(phase(None)) == work(tiny()) == UnlearningWork()
    assert UnlearningWork().text(10) == ""


def test_trainings_are_compared_with_those_of_the_phase() -> None:
    text = UnlearningWork(clients=1, trainings=5, evidence=3).text(20)
    assert text == (
        "1 client of all runs with something to forget, 5 local trainings again, 25 % of those of the phase"
    )
