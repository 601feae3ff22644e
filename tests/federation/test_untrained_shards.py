"""Tests of `fedmem/federation/untrained_shards.py`."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.federation.build import build
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"sampler": {"kind": "listed", "clients": [0, 2]}}, "in 4 of 4 runs no client of shard 1 takes part"),
        ({"sampler": {"kind": "listed", "clients": [0, 1]}}, ""),
        ({"sampler": {"kind": "everyone"}}, ""),
        ({"sampler": {"kind": "listed", "clients": [0]}, "client_shards": 1}, ""),
        ({"sampler": {"kind": "listed", "clients": [0]}, "client_shards": 5}, "no client of shard 1, 2, 3, 4 takes"),
    ],
)
def test_a_shard_that_nobody_trains_is_warned_of(changes: dict[str, Any], text: str) -> None:
    warnings = " ".join(build(tiny(**{"client_shards": 2, "runs": 4, **changes})).warnings)
    assert (text in warnings) if text else ("shard" not in warnings)


def test_runs_with_an_untrained_shard_are_counted() -> None:
    scenario = tiny(
        client_shards=5, runs=16, rounds=2, roster="per_run", sampler={"kind": "uniform", "size": 3}, estimators=[]
    )
    (warning,) = [text for text in build(scenario).warnings if "shard" in text]
    assert 8 < int(warning.split()[1]) < 16
