"""Tests of `fedmem/scenario/speed.py`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedmem.scenario.speed import Speed
from tests.tiny import tiny


def test_speed_is_no_part_of_the_id() -> None:
    assert tiny().id == tiny(speed={"workers": 2, "shard": 3, "executor": "one_by_one"}).id


@pytest.mark.parametrize("field", [{"workers": 0}, {"shard": 0}, {"memory": 0}, {"engine": "ray"}, {"device": "tpu"}])
def test_impossible_speeds_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Speed.model_validate(field)
