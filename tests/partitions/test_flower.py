"""Tests of `fedmem/partitions/flower.py`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import IntArray
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.partitions.flower import Flower
from tests.partitions.partitions_helpers import labelled


def dealt(clients: int = 4, rows: int = 203, leave_out: bool = False, **fields: Any) -> tuple[IntArray, ...]:
    targets = np.random.default_rng(0).integers(5, size=300)
    data = labelled(targets)
    partition = Flower(leave_out=leave_out, **fields)
    return tuple(partition.assign(data, np.arange(0, 300)[:rows], clients, np.random.default_rng(1)))


@pytest.mark.parametrize(
    ("partitioner", "arguments"),
    [
        ("IidPartitioner", {}),
        ("LinearPartitioner", {}),
        ("SquarePartitioner", {}),
        ("DirichletPartitioner", {"alpha": 1.0, "min_partition_size": 2}),
        ("DirichletPartitioner", {"alpha": (1.0, 0.5, 2.0, 1.0), "min_partition_size": 2}),
        ("ContinuousPartitioner", {"strictness": 0.5}),
        ("SizePartitioner", {"partition_sizes": (100, 50, 50, 3)}),
        ("PathologicalPartitioner", {"num_classes_per_partition": 2, "class_assignment_mode": "deterministic"}),
    ],
)
def test_flower_partitioners_deal_out_every_row(partitioner: str, arguments: dict[str, object]) -> None:
    parts, again = (dealt(partitioner=partitioner, arguments=arguments) for _ in range(2))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(203))
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_flower_partitioners_shuffle_what_has_no_seed() -> None:
    """IidPartitioner deals out rows in their order, which may mean something."""
    for part in dealt(partitioner="IidPartitioner"):
        assert stats.kstest(part, "uniform", args=(0, 203)).pvalue > 1e-3


def test_flower_uses_the_owners_that_the_data_know() -> None:
    data = Synthetic(rows=60, groups=3).load(np.random.default_rng(0))
    assert data.natural is not None
    natural = Flower(partitioner="NaturalIdPartitioner", arguments={"partition_by": "natural"})
    parts = natural.assign(data, np.arange(60), 3, np.random.default_rng(0))
    assert {frozenset(part.tolist()) for part in parts} == {
        frozenset(np.flatnonzero(data.natural == owner).tolist()) for owner in range(3)
    }
    with pytest.raises(ComponentError, match="write `clients: 3`") as caught:
        natural.assign(data, np.arange(60), 4, np.random.default_rng(0))
    assert caught.value.path == "clients"


def test_flower_counts_the_rows_that_are_left_out() -> None:
    """The shards that do not fill up are lost; so is every row of a class that nobody was given."""
    arguments = {"num_shards_per_partition": 2, "shard_size": 20}
    with pytest.raises(ComponentError) as caught:
        dealt(partitioner="ShardPartitioner", arguments=arguments)
    assert caught.value.path == "partition.leave_out"
    message = caught.value.message
    assert "leaves out 43 of 203 rows (" in message
    assert "write `leave_out: true`" in message
    listed = [int(part.split(" of class")[0]) for part in message.split("(")[1].split(")")[0].split(", ")]
    assert sum(listed) == 43
    parts = dealt(partitioner="ShardPartitioner", arguments=arguments, leave_out=True)
    assert sum(len(part) for part in parts) == len(np.unique(np.concatenate(parts))) == 160


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"partitioner": "IidPartitoner"}, "partition.partitioner", "did you mean 'IidPartitioner'"),
        ({"partitioner": "VerticalEvenPartitioner"}, "partition.partitioner", "splits columns, not rows"),
        ({"partitioner": "DirichletPartitioner"}, "partition.arguments", "needs alpha; write {alpha: ...}"),
        ({"arguments": {"alpha": 1.0}}, "partition.arguments.alpha", "takes no such argument"),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alhpa": 1.0}},
            "partition.arguments.alhpa",
            "did you mean 'alpha'",
        ),
        ({"arguments": {"num_partitions": 3}}, "partition.arguments.num_partitions", "`clients` of the scenario"),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alpha": -1.0}},
            "partition.arguments",
            "strictly greater than zero",
        ),
        (
            {"partitioner": "DirichletPartitioner", "arguments": {"alpha": 1e-3, "min_partition_size": 40}},
            "partition.arguments",
            "max number of attempts",
        ),
        ({"partitioner": "SizePartitioner", "arguments": {"partition_sizes": (100, 103)}}, "clients", "`clients: 2`"),
        ({"clients": 300}, "partition", "lower clients to at most 203"),
    ],
)
def test_wrong_flower_partitioners_are_refused_with_their_key(fields: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(ComponentError) as caught:
        dealt(**fields)
    assert caught.value.path == path
    assert message in caught.value.message


def test_flower_datasets_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr_datasets", None)
    with pytest.raises(ComponentError, match=r"pip install 'fedmem\[partitioners\]'") as caught:
        dealt()
    assert caught.value.path == "partition.kind"
