"""Tests of `fedmem/contracts/client_shards.py`."""

from __future__ import annotations

from dataclasses import replace

from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.federation import _parts_of, digest
from fedmem.contracts.training_mode import TrainingMode
from fedmem.federation.build import build
from tests.tiny import tiny


def test_entries_of_shards_1_and_10_are_different() -> None:
    shards = ClientShards(count=11)
    model = {shards.entry(shard, "w"): shard for shard in range(11)}
    assert [shards.constituent(shard, model) for shard in (1, 10)] == [{"w": 1}, {"w": 10}]


def test_a_single_shard_has_the_whole_model() -> None:
    model = {"constituents.0.w": 1, "b": 2}
    assert ClientShards().constituent(0, model) == model


def test_digests_tell_the_number_of_shards() -> None:
    """And are those of earlier versions where there are none."""
    plain = build(tiny(runs=2))
    modes = [TrainingMode(), *(TrainingMode(client_shards=ClientShards(count=count)) for count in (2, 3))]
    assert len({digest(replace(plain, mode=mode)) for mode in modes}) == 3
    assert "client_shards" not in dict(_parts_of(TrainingMode()))
