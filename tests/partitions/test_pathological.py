"""Tests of `fedmem/partitions/pathological.py`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.errors import ComponentError
from fedmem.partitions.pathological import Pathological
from tests.partitions.partitions_helpers import EXCHANGEABLE, labelled


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 12),
    classes=st.integers(1, 6),
    reserve=st.integers(0, 50),
    pick=st.integers(0, len(EXCHANGEABLE) - 1),
)
def test_partitions_are_disjoint_and_complete(seed: int, clients: int, classes: int, reserve: int, pick: int) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.integers(classes, size=400))
    rows = np.sort(rng.choice(400, size=400 - reserve, replace=False))
    partition = EXCHANGEABLE[pick]
    if isinstance(partition, Pathological):
        partition = Pathological(classes=int(rng.integers(-(-classes // clients), classes + 1)))
    parts, again = (partition.assign(data, rows, clients, np.random.default_rng(seed)) for _ in range(2))
    assert len(parts) == clients
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    for one, other in zip(parts, again, strict=True):
        assert len(one) > 0
        assert np.all(np.diff(one) > 0)
        np.testing.assert_array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 15), classes=st.integers(1, 8), k=st.integers(1, 8))
def test_pathological_clients_hold_k_classes_shared_evenly(seed: int, clients: int, classes: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.repeat(np.arange(classes), 15), rng.integers(classes, size=120)])
    partition = Pathological(classes=k)
    if k > classes or clients * k < classes:
        with pytest.raises(ComponentError, match=r"use at most|raise classes") as caught:
            partition.assign(labelled(targets), np.arange(len(targets)), clients, rng)
        assert caught.value.path == "partition.classes"
        return
    parts = partition.assign(labelled(targets), np.arange(len(targets)), clients, rng)
    counts = np.stack([np.bincount(targets[part], minlength=classes) for part in parts])
    assert ((counts > 0).sum(axis=1) == k).all()
    owners = (counts > 0).sum(axis=0)
    assert owners.min() >= 1
    assert owners.max() - owners.min() <= 1
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1


def test_pathological_names_the_class_that_is_too_small() -> None:
    data = labelled(np.repeat([0, 1], [50, 3]))
    with pytest.raises(ComponentError, match="class 1 has 3 rows, but 5 clients are to have some of it"):
        Pathological(classes=2).assign(data, np.arange(53), 5, np.random.default_rng(0))


def test_pathological_names_the_clients_that_cover_all_classes() -> None:
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match="raise classes to at least 4, or clients to at least 5"):
        Pathological(classes=2).assign(data, np.arange(200), 3, np.random.default_rng(0))
