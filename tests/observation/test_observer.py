"""Tests of `fedmem/observation/observer.py`."""

from __future__ import annotations

from tests.engines.lockstep_helpers import same, trained
from tests.tiny import tiny


def test_parameters_are_equal_with_and_without_watching() -> None:
    scenario = tiny(probes=[{"kind": "utility"}])
    assert same(trained(scenario).params, trained(scenario, watch=False).params)
