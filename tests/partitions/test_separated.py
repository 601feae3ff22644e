"""Tests of `fedmem/partitions/separated.py`: rows of one kind at clients of their own."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.data import Dataset
from fedmem.datasets.randomised import Randomised
from fedmem.errors import ComponentError
from fedmem.federation.build import build, load
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.separated import Separated
from tests.tiny import tiny

DATA = Randomised(labels=0.3).load(np.random.default_rng(1))
ROWS = np.arange(0, 1500, 2)


def parts(partition: Separated, clients: int = 10, data: Dataset = DATA) -> list[np.ndarray]:
    return list(partition.assign(data, ROWS, clients, np.random.default_rng(2)))


def test_sides_are_apart_and_cover_all_rows() -> None:
    found = parts(Separated())
    assert np.array_equal(np.sort(np.concatenate(found)), ROWS)
    is_random = DATA.columns["random label"] == "yes"
    assert [bool(is_random[rows].any()) for rows in found] == [False] * 7 + [True] * 3
    assert all(is_random[rows].all() for rows in found[7:])
    sizes = [len(rows) for rows in found]
    assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize(("share", "with_value"), [(0.01, 1), (0.99, 3), (0.5, 2)])
def test_each_side_has_a_client(share: float, with_value: int) -> None:
    data = Randomised(labels=share).load(np.random.default_rng(1))
    found = parts(Separated(), 4, data)
    is_random = data.columns["random label"] == "yes"
    assert [bool(is_random[rows].all()) for rows in found].count(True) == with_value


def test_wrong_columns_and_values_are_errors() -> None:
    for partition, path, message in (
        (Separated(column="random labl"), "partition.column", "did you mean 'random label'"),
        (Separated(value="maybe"), "partition.value", "no row has 'maybe'"),
        (Separated(base=Dirichlet(min_rows=10_000)), "partition.base", "rows"),
    ):
        with pytest.raises(ComponentError, match=message) as caught:
            parts(partition)
        assert caught.value.path.startswith(path) or path == "partition.base"
    with pytest.raises(ComponentError, match="every row"):
        parts(Separated(), data=Randomised(labels=1.0).load(np.random.default_rng(1)))
    with pytest.raises(ComponentError, match="both sides"):
        parts(Separated(), 1)


def test_replacement_rows_are_of_the_side_of_their_example() -> None:
    scenario = tiny(
        dataset={"kind": "randomised", "labels": 0.4},
        partition={"kind": "separated"},
        injections=[{"kind": "typical", "per_client": 3}],
    )
    data, federation = load(scenario), build(scenario)
    labels = dict(zip(data.train.ids.tolist(), data.columns["random label"] == "yes", strict=True))
    is_random = np.array([labels[row] for row in federation.store.ids.tolist()])
    side = [bool(is_random[rows].any()) for rows in federation.base]
    assert side == [False, False, False, True, True]
    owner = federation.audit.owner
    assert [labels[row] for row in federation.audit.examples.ids.tolist()] == [side[client] for client in owner]
    replaced = federation.replacement >= 0
    assert replaced.any()
    sides = np.broadcast_to(np.array(side)[owner], replaced.shape)
    assert np.array_equal(is_random[federation.replacement[replaced]], sides[replaced])
