"""Tests of `fedmem/scenario/check_twins.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from tests.tiny import tiny

LEAVE_OUT = {"injections": [], "leave_out": {"clients": "all"}}


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"runs": 6, "twins": 2}, "twins", "multiple of 4, such as 8"),
        ({"runs": 2, "twins": 2}, "twins", "multiple of 4, such as 4"),
        ({"runs": 8, "twins": 2, "batches": "shared"}, "twins", "initial_weights: per_run"),
        ({"runs": 16, "estimators": [{"kind": "noise_ceiling"}]}, "estimators[0]", "write twins: 2"),
        ({"runs": 8, "twins": 2, "estimators": [{"kind": "unique_information"}]}, "estimators[0]", "independent trial"),
        (
            {"runs": 8, "twins": 2, "estimators": [{"kind": "audit", "method": "over_runs"}]},
            "estimators[0]",
            "independent trial",
        ),
        (
            {"runs": 8, "twins": 2, "estimators": [{"kind": "membership", "attack": {"kind": "lira"}}]},
            "estimators[0].attack",
            "8 runs with 2 twins are 4. Set runs to 16",
        ),
    ],
)
def test_what_twins_cannot_be_is_refused_with_the_remedy(changes: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        tiny(**changes)
    problem = next(problem for problem in caught.value.problems if text in problem.message)
    assert problem.path == path


@pytest.mark.parametrize(
    "changes",
    [
        {"runs": 8, "twins": 4},
        {"runs": 8, "twins": 2, "batches": "shared", "initial_weights": "per_run"},
        {"runs": 8, "batches": "shared"},
        {"runs": 8, "twins": 2, "estimators": [{"kind": "audit"}, {"kind": "memorisation"}]},
    ],
)
def test_twins_that_differ_are_allowed(changes: dict[str, Any]) -> None:
    assert tiny(**changes).runs == 8
