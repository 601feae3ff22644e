"""Label marginals and sizes of each partition, and what happens where there is no answer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.data import Dataset, Partition
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.iid import IID
from fedmem.partitions.inner_dirichlet import InnerDirichlet
from fedmem.partitions.natural import Natural
from fedmem.partitions.pathological import Pathological
from fedmem.partitions.quantity_skew import QuantitySkew
from fedmem.partitions.shards import Shards
from tests.partitions.partitions_helpers import EXCHANGEABLE, labelled, shares


@pytest.mark.parametrize("partition", [Dirichlet(alpha=1e6), IID()])
def test_rows_of_a_class_are_picked_at_random(partition: Dirichlet | IID) -> None:
    """The order of the file may mean something (writers, time) and must not decide who holds a row."""
    data = labelled(np.zeros(1000, np.int64))
    for part in partition.assign(data, np.arange(1000), 4, np.random.default_rng(0)):
        assert stats.kstest(part, "uniform", args=(0, 1000)).pvalue > 1e-3


@pytest.mark.parametrize(
    "partition",
    [
        Dirichlet(alpha=50.0, min_rows=1),
        IID(),
        InnerDirichlet(min_rows=1, sigma=0.5),
        Natural(),
        Pathological(classes=2),
        QuantitySkew(law="power", alpha=0.1, min_rows=1),
        Shards(per_client=2),
    ],
)
def test_fifty_thousand_clients_are_dealt_out_at_once(partition: Any) -> None:
    """A pass over all rows for each client would take hours here."""
    clients, rows = 50_000, 400_000
    rng = np.random.default_rng(0)
    data = labelled(rng.integers(10, size=rows))
    data = replace(data, natural=rng.permutation(np.arange(rows) % clients))
    parts = partition.assign(data, np.arange(rows), clients, rng)
    assert isinstance(parts, Ragged)
    assert len(parts) == clients
    assert parts.sizes.min() >= 1
    np.testing.assert_array_equal(np.sort(parts.rows), np.arange(rows))
    inside = np.ones(rows, dtype=bool)
    inside[parts.starts[:-1]] = False
    assert (np.diff(parts.rows, prepend=0)[inside] > 0).all(), "each part is sorted"


@pytest.mark.parametrize("partition", [Dirichlet(min_rows=10), IID(min_rows=10)])
def test_fewer_rows_than_the_minimum_asks_for(partition: Dirichlet | IID) -> None:
    data = labelled(np.arange(10) % 2)
    with pytest.raises(ComponentError, match="lower clients or min_rows until their product is at most 10"):
        partition.assign(data, np.arange(10), 2, np.random.default_rng(0))


def test_a_single_client_gets_everything() -> None:
    data = labelled(np.arange(30) % 3)
    for partition in (Dirichlet(), IID()):
        (part,) = partition.assign(data, np.arange(30), 1, np.random.default_rng(0))
        np.testing.assert_array_equal(part, np.arange(30))


def off_the_marginals(partition: Partition, seeds: int = 400) -> float:
    """How many standard errors the mean share of a class that some client got is away from 1/N, at most."""
    targets = np.repeat(np.arange(4), [40, 11, 75, 25])
    draws = np.stack([shares(partition, targets, 5, seed) for seed in range(seeds)])
    error = np.maximum(draws.std(0) / np.sqrt(seeds), 1e-4)
    return float((np.abs(draws.mean(0) - 0.2) / error).max())


@pytest.mark.parametrize("partition", EXCHANGEABLE, ids=repr)
def test_every_client_expects_the_same_share_of_every_class(partition: Partition) -> None:
    assert off_the_marginals(partition) < 4.5


class UsedUp:
    """What goes wrong where clients choose one after the other: the first have their mix, the last what is left."""

    def assign(self, data: Dataset, rows: IntArray, num_clients: int, rng: np.random.Generator) -> tuple[IntArray, ...]:
        free = rng.permutation(rows)
        parts = []
        for size in np.diff(np.linspace(0, len(rows), num_clients + 1).astype(int)):
            mix = rng.dirichlet(np.full(data.num_classes, 0.3)) * np.array([1.0, 1, 3, 1])
            odds = mix[data.train.targets[free]] + 1e-9
            chosen = rng.choice(len(free), size=size, replace=False, p=odds / odds.sum())
            parts.append(np.sort(free[chosen]))
            free = np.delete(free, chosen)
        return tuple(parts)


def test_marginal_test_rejects_clients_that_choose_in_sequence() -> None:
    assert off_the_marginals(UsedUp()) > 6


# --- feature skew ---------------------------------------------------------------------------------------------------


# --- partitioners of flwr-datasets ----------------------------------------------------------------------------------


def test_no_client_always_gets_the_odd_row() -> None:
    """23 rows for 5 clients are three of five and two of four; who has four is drawn, so that each has it sometimes."""
    partition, fewer = InnerDirichlet(alpha=1.0, min_rows=1), np.zeros(5)
    for seed in range(200):
        parts = partition.assign(labelled(np.arange(23) % 3), np.arange(23), 5, np.random.default_rng(seed))
        sizes = np.array([len(part) for part in parts])
        assert sorted(sizes.tolist()) == [4, 4, 5, 5, 5]
        fewer += sizes == 4
    assert stats.chisquare(fewer, np.full(5, 80.0)).pvalue > 1e-3
