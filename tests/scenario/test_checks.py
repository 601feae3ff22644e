"""Tests of `fedmem/scenario/checks.py`."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.checks import CHECKS, problems
from fedmem.scenario.coins import Coins
from fedmem.scenario.scenario import Scenario
from tests.tiny import TINY, tiny


def refused(**changes: Any) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        tiny(**changes)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_odd_number_of_runs_is_refused_except_one() -> None:
    assert "use 6 (or 1" in refused(runs=5)["runs"]
    assert tiny(runs=1).runs == 1


def test_equal_or_unsafe_names_of_injections_are_refused() -> None:
    typical = {"kind": "typical"}
    found = refused(injections=[typical, typical, {**typical, "label": "a,b"}])
    assert "label: typical_1" in found["injections[1]"]
    assert "label: a_b" in found["injections[2].label"]
    assert len(tiny(injections=[typical, {**typical, "label": "other"}]).injections) == 2


def test_injection_into_a_missing_client_is_refused() -> None:
    found = refused(injections=[{"kind": "typical", "clients": [1, 5]}])
    assert found == {"injections[0].clients[1]": found["injections[0].clients[1]"]}
    assert "there are 5; use 0 to 4" in found["injections[0].clients[1]"]


def test_check_whose_field_is_missing_is_skipped() -> None:
    assert problems({}) == []
    coins = Coins()
    assert problems({"runs": 3}) == []
    assert [problem.path for problem in problems({"runs": 3, "coins": coins})] == ["runs"]
    assert problems({"runs": TINY["runs"], "coins": coins}) == []


def test_parameters_of_checks_are_fields_of_a_scenario() -> None:
    """A parameter of another name would leave its check out, in every scenario."""
    read = {(check.__name__, name) for check in CHECKS for name in inspect.signature(check).parameters}
    assert {(check, name) for check, name in read if name not in Scenario.model_fields} == set()
    assert {"cohort_by", "injections", "runs"} <= {name for _, name in read}
