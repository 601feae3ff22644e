"""Tests of `fedmem/reporting/metric_names.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.reporting.metric_names import check_metric
from tests.tiny import tiny

SCENARIO = tiny(estimators=[{"kind": "memorisation"}])


@pytest.mark.parametrize("name", ["memorisation", "memorisation.difference", "memorisation.p"])
def test_declared_measure_and_its_variants_are_accepted(name: str) -> None:
    check_metric(name, [SCENARIO])


@pytest.mark.parametrize(
    ("name", "message"),
    [("exposure", "exposure is measured by .*exposure"), ("memorization", "did you mean 'memorisation'")],
)
def test_other_measures_are_refused_with_component_or_spelling(name: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message) as caught:
        check_metric(name, [SCENARIO], source="x.yaml", path="search.directions")
    (problem,) = caught.value.problems
    assert (problem.source, problem.path) == ("x.yaml", "search.directions")
    with pytest.raises(ScenarioError):
        check_metric(name, [])


def test_measure_of_any_of_several_scenarios_is_accepted() -> None:
    check_metric("exposure", [SCENARIO, tiny(estimators=[{"kind": "exposure"}])])
