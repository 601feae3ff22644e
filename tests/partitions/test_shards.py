"""Tests of `fedmem/partitions/shards.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.partitions.shards import Shards
from tests.partitions.partitions_helpers import labelled


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 10), each=st.integers(1, 4), extra=st.integers(0, 60))
def test_shards_are_consecutive_in_the_order_of_labels(seed: int, clients: int, each: int, extra: int) -> None:
    """Every label order cut at the same places is a shard order: count what each client may hold of each class."""
    count = clients * each + extra
    rng = np.random.default_rng(seed)
    targets = rng.integers(5, size=count)
    parts = Shards(per_client=each).assign(labelled(targets), np.arange(count), clients, rng)
    longest = -(-count // (clients * each))
    shards = [shard.tolist() for shard in np.array_split(np.sort(targets), clients * each)]
    held = [sorted(targets[part].tolist()) for part in parts]
    assert sorted(label for hand in held for label in hand) == sorted(label for shard in shards for label in shard)
    for hand in held:
        assert each * (longest - 1) <= len(hand) <= each * longest
        if clients == 1 or each == 1:
            # With one shard for each, the hands are the shards themselves.
            assert hand in (shards if each == 1 else [sorted(targets.tolist())])


def test_shards_that_fit_the_classes_have_one_label_each() -> None:
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    parts = Shards(per_client=2).assign(labelled(targets), np.arange(600), 10, np.random.default_rng(1))
    assert {len(part) for part in parts} == {60}
    assert {tuple(np.unique(targets[part], return_counts=True)[1]) for part in parts} <= {(30, 30), (60,)}
