"""Tests of `fedmem/scenario/tied_dropout.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.tied_dropout import TiedDropout
from tests.tiny import tiny

TIED: dict[str, Any] = {"layers": ["activation1"]}


def test_it_is_part_of_the_scenario_and_its_id() -> None:
    plain, tied, by_client = (
        tiny(**({} if one is None else {"tied_dropout": one})) for one in (None, TIED, {**TIED, "unit": "client"})
    )
    assert len({plain.id, tied.id, by_client.id}) == 3
    assert tied.tied_dropout == TiedDropout(layers=("activation1",))
    assert plain.id == tiny(tied_dropout=None).id


@pytest.mark.parametrize(
    "changes",
    [{"fixed": 0}, {"fixed": 1.5}, {"tied": -0.1}, {"tied": 1.1}, {"unit": "round"}, {"layers": []}, {"share": 0.1}],
    ids=lambda changes: next(iter(changes)),
)
def test_shares_and_fields_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError, match=rf"tied_dropout\.{next(iter(changes))}"):
        tiny(tied_dropout={**TIED, **changes})
