"""Tests of `fedmem/scenario/speed.py`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedmem.errors import ScenarioError
from fedmem.scenario.speed import Speed
from tests.tiny import tiny


def test_speed_is_no_part_of_the_id() -> None:
    assert tiny().id == tiny(speed={"workers": 2, "shard": 3, "executor": "one_by_one"}).id


@pytest.mark.parametrize("field", [{"workers": 0}, {"shard": 0}, {"memory": 0}, {"engine": "ray"}, {"device": "tpu"}])
def test_impossible_speeds_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Speed.model_validate(field)


def test_a_precision_other_than_fp32_is_part_of_the_id() -> None:
    """Finished runs are served by id, and those of another precision have other numbers."""
    ids = {
        tiny(speed=speed).id
        for speed in (
            {},
            {"precision": "fp32"},
            {"precision": "fp32", "device": "cuda"},
            {"precision": "bf16"},
            {"precision": "bf16", "device": "cuda"},
            {"precision": "tf32", "device": "cuda"},
        )
    }
    assert len(ids) == 3
    assert tiny(speed={"precision": "fp32"}).id == tiny().id


def test_tf32_and_float64_are_refused_with_clipped_gradients() -> None:
    client = {"kind": "dp_sgd", "lr": 0.1, "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8}
    tiny(client=client, speed={"precision": "bf16"})
    with pytest.raises(ScenarioError, match=r"speed.precision: tf32 would also round the sums .* dp_sgd"):
        tiny(client=client, speed={"precision": "tf32", "device": "cuda"})
    with pytest.raises(ScenarioError, match=r"speed.device: dp_sgd measures gradients in float64.*device: cpu"):
        tiny(client=client, speed={"device": "mps"})
