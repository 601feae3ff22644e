"""Label marginals and sizes of each partition, and what happens where there is no answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.datasets.digits import Digits
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.partitions.iid import IID
from fedmem.partitions.natural import Natural
from fedmem.types import Dataset, Examples, IntArray


def labelled(targets: IntArray) -> Dataset:
    """A data set that is nothing but labels."""
    rows = Examples(inputs=np.zeros((len(targets), 1), np.float32), targets=targets, ids=np.arange(len(targets)))
    return Dataset(train=rows, test=rows.take(np.arange(0)), num_classes=int(targets.max()) + 1)


def shares(partition: Dirichlet | IID, targets: IntArray, clients: int, seed: int) -> np.ndarray:
    """(clients, classes) share of each class that each client got."""
    data = labelled(targets)
    parts = partition.assign(data, np.arange(len(targets)), clients, np.random.default_rng(seed))
    counts = np.stack([np.bincount(targets[part], minlength=data.num_classes) for part in parts])
    return counts / np.bincount(targets, minlength=data.num_classes)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    clients=st.integers(1, 12),
    alpha=st.floats(0.3, 100),
    min_rows=st.integers(1, 5),
    reserve=st.integers(0, 50),
)
def test_dirichlet_loses_nothing_and_repeats_itself(
    seed: int, clients: int, alpha: float, min_rows: int, reserve: int
) -> None:
    rng = np.random.default_rng(seed)
    data = labelled(rng.integers(6, size=400))
    rows = np.sort(rng.choice(400, size=400 - reserve, replace=False))
    partition = Dirichlet(alpha=alpha, min_rows=min_rows)
    parts, again = (partition.assign(data, rows, clients, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)
    assert min(len(part) for part in parts) >= min_rows
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 30), count=st.integers(30, 200))
def test_iid_is_complete_and_even(seed: int, clients: int, count: int) -> None:
    data = labelled(np.zeros(count, np.int64))
    parts = IID().assign(data, np.arange(count), clients, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_large_alpha_gives_everyone_the_global_labels() -> None:
    """The last client and the last class too: a prior that is used up or reset on the way shows here."""
    targets = np.repeat(np.arange(5), [1000, 2000, 500, 1500, 3000])
    assert shares(Dirichlet(alpha=1e6), targets, 10, 0) == pytest.approx(np.full((10, 5), 0.1), abs=0.005)


@pytest.mark.parametrize("partition", [Dirichlet(alpha=1e6), IID()])
def test_rows_of_a_class_are_picked_at_random(partition: Dirichlet | IID) -> None:
    """The order of the file may mean something (writers, time) and must not decide who holds a row."""
    data = labelled(np.zeros(1000, np.int64))
    for part in partition.assign(data, np.arange(1000), 4, np.random.default_rng(0)):
        assert stats.kstest(part, "uniform", args=(0, 1000)).pvalue > 1e-3


def test_small_alpha_gives_a_class_to_few() -> None:
    targets = np.repeat(np.arange(10), 500)
    largest = shares(Dirichlet(alpha=0.05), targets, 10, 0).max(0).mean()
    assert largest > 0.6 > 0.2 > shares(Dirichlet(alpha=100.0), targets, 10, 0).max(0).mean()


@pytest.mark.statistical
def test_dirichlet_has_the_moments_of_a_dirichlet_for_every_client_and_class() -> None:
    """Mean 1/N and variance (1/N)(1-1/N)/(N alpha+1) whichever the client, the class and its size."""
    clients, alpha, repetitions = 5, 0.7, 3000
    targets = np.repeat(np.arange(4), [400, 100, 800, 200])
    draws = np.stack(
        [shares(Dirichlet(alpha=alpha, min_rows=1), targets, clients, seed) for seed in range(repetitions)]
    )
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    error = 4.5 * np.sqrt(variance / repetitions)
    assert np.abs(draws.mean(0) - 1 / clients).max() < error
    assert draws.var(0) == pytest.approx(np.full((clients, 4), variance), rel=0.12)
    # The same bounds reject another concentration, and boundaries that are rounded down.
    wrong = (1 / clients) * (1 - 1 / clients) / (clients * 1.0 + 1)
    assert not np.allclose(draws.var(0), wrong, rtol=0.12)
    few = np.repeat(np.arange(4), 10)
    floored = []
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        bounds = np.floor(np.cumsum(rng.dirichlet(np.full(clients, alpha)))[:-1] * 10)
        floored.append((10 - bounds[-1]) / 10)
    assert np.mean(floored) - 1 / clients > error
    rounded = np.stack([shares(Dirichlet(alpha=alpha, min_rows=1), few, clients, s) for s in range(repetitions)])
    assert np.abs(rounded.mean(0) - 1 / clients).max() < 2 * error


@pytest.mark.statistical
def test_relabelling_the_classes_changes_nothing_in_distribution() -> None:
    """Concentration of a class must not depend on whether it is split first or last."""
    targets = np.repeat(np.arange(8), 100)
    squares = [(shares(Dirichlet(alpha=0.2, min_rows=1), targets, 6, seed) ** 2).sum(0) for seed in range(1000)]
    mean, error = np.mean(squares, axis=0), np.std(squares, axis=0) / np.sqrt(1000)
    assert np.abs(mean - mean.mean()).max() < 4 * error.max()


def test_dirichlet_gives_up_after_bounded_draws_and_says_what_to_change() -> None:
    data = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(ComponentError, match=r"1000 draws of alpha 0\.02 .*20 clients 5 of 200 rows.*raise alpha"):
        Dirichlet(alpha=0.02, min_rows=5).assign(data, np.arange(200), 20, np.random.default_rng(0))


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


def test_natural_gives_each_form_its_rows() -> None:
    data = Digits().load(np.random.default_rng(0))
    assert data.natural is not None
    rows = np.arange(0, 1500, 2)
    for form, part in enumerate(Natural().assign(data, rows, 14, np.random.default_rng(0))):
        np.testing.assert_array_equal(part, rows[data.natural[rows] == form])


def test_natural_names_the_number_of_clients_that_works() -> None:
    data = Digits().load(np.random.default_rng(0))
    with pytest.raises(ComponentError, match="write `clients: 14`") as caught:
        Natural().assign(data, np.arange(1500), 20, np.random.default_rng(0))
    assert caught.value.path == "clients"


def test_natural_wants_owners_that_still_have_rows() -> None:
    with pytest.raises(ComponentError, match="no natural owners") as caught:
        Natural().assign(labelled(np.zeros(9, np.int64)), np.arange(9), 3, np.random.default_rng(0))
    assert caught.value.path == "partition.kind"
    data = Synthetic(rows=60, groups=3).load(np.random.default_rng(0))
    assert data.natural is not None
    with pytest.raises(ComponentError, match="owner 1 first"):
        Natural().assign(data, np.flatnonzero(data.natural != 1), 3, np.random.default_rng(0))
