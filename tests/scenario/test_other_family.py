"""Tests of `fedmem/scenario/other_family.py`."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.catalogue import build
from fedmem.scenario.other_family import other_family_text


@pytest.mark.parametrize("given", ["lira", {"kind": "lira"}])
def test_kind_of_another_family_is_named_with_its_place(given: object) -> None:
    with pytest.raises(ScenarioError, match="kind of attack") as caught:
        build("estimator", given)
    assert "write it as {kind: membership, attack: {kind: lira}}" in str(caught.value)
    assert build("estimator", {"kind": "membership", "attack": {"kind": "lira"}})


def test_kinds_of_the_family_and_unknown_ones_have_no_hint() -> None:
    assert other_family_text("attack", "lira") == ""
    assert other_family_text("estimator", "nothing") == ""
