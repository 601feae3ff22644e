"""Tests of `fedmem/scenario/normalising.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.normalising import Norm
from tests.normalised import normed


def test_a_policy_is_part_of_the_scenario_and_its_id() -> None:
    ids = {normed(kind).id for kind in (None, "local", "averaged", "frozen", "to_group")}
    assert len(ids) == 5
    assert normed("local").norm == Norm(kind="local")
    assert normed(None).dump()["norm"] is None


def test_an_unknown_policy_names_the_four() -> None:
    with pytest.raises(ScenarioError, match=r"local.*averaged.*frozen.*to_group"):
        normed("global")
