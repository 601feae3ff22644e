"""What every partition promises, for every file in the folder."""

import numpy as np
import pytest

from fedmem.contracts.data import Dataset, Partition
from fedmem.datasets.randomised import Randomised
from fedmem.datasets.synthetic import Synthetic
from fedmem.errors import ComponentError
from fedmem.scenario import catalogue

CLIENTS = 5
every_partition = pytest.mark.parametrize("kind", catalogue.kinds("partition"))


def make(kind: str) -> Partition:
    component = catalogue.load("partition", kind)()
    assert isinstance(component, Partition)
    return component


@pytest.fixture(scope="module")
def data() -> Dataset:
    """As many natural owners as clients, and a column with two values: each partition has its answer."""
    base = Synthetic(rows=600, classes=4, groups=CLIENTS)
    return Randomised(base=base, labels=0.4).load(np.random.default_rng(0))


@every_partition
@pytest.mark.parametrize("seed", range(5))
def test_partition_assigns_exactly_the_given_rows(kind: str, seed: int, data: Dataset) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(600, size=500, replace=False))
    parts = make(kind).assign(data, rows, CLIENTS, rng)
    assert len(parts) == CLIENTS
    for part in parts:
        assert part.dtype == np.int64
        assert len(part) > 0
        assert np.all(np.diff(part) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), rows)


@every_partition
def test_draws_from_its_generator_alone(kind: str, data: Dataset) -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (the global generator must stay untouched)
    first, second = (make(kind).assign(data, np.arange(600), CLIENTS, np.random.default_rng(3)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before, np.random.get_state(legacy=False)["state"]["key"])  # noqa: NPY002


@every_partition
def test_leaves_its_input_alone(kind: str, data: Dataset) -> None:
    rows = np.arange(600)
    make(kind).assign(data, rows, CLIENTS, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, np.arange(600))


@every_partition
def test_too_few_rows_are_an_error_with_a_fix(kind: str, data: Dataset) -> None:
    with pytest.raises(ComponentError, match="lower") as caught:
        make(kind).assign(data, np.arange(CLIENTS - 1), CLIENTS, np.random.default_rng(0))
    # A nested partition that gives the rows out is blamed itself.
    assert caught.value.path.removesuffix(".base") == "partition"
