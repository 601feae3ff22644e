"""Tests of `fedmem/guards/time_limit.py`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.guards.guarding_helpers import message_of, with_part
from tests.tiny import tiny


@pytest.mark.parametrize(
    "speed",
    [
        {"executor": "one_by_one", "workers": 1},
        {"executor": "stacked", "workers": 1},
        {"executor": "one_by_one", "workers": 2},
        {"executor": "stacked", "workers": 2, "shard": 1},
    ],
    ids=["one_by_one", "stacked", "spread", "shards"],
)
def test_a_client_whose_step_hangs_is_stopped(speed: dict[str, Any], tmp_path: Path) -> None:
    changes = with_part("client", "BadClient", how="hang") | {"speed": {**speed, "seconds_per_client": 0.3}}
    begun = time.monotonic()
    text = message_of(tmp_path, changes)
    assert time.monotonic() - begun < 60
    assert "client tests.bad_parts:BadClient failed in its steps: they took longer than" in text
    assert "speed.seconds_per_client" in text
    assert re.search(r"bad_parts\.py:\d+", text)


def test_time_limit_of_a_client_does_not_change_the_id() -> None:
    assert tiny(speed={"seconds_per_client": 5.0}).id == tiny().id
