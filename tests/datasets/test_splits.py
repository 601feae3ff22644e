"""Stratified samples have every class's exact share, and splits never share a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmem.contracts.arrays import IntArray
from fedmem.datasets._splits import sample, split, stratified_sample
from fedmem.errors import ComponentError

labels = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(np.array)


@given(targets=labels, share=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_every_class_has_its_share(targets: IntArray, share: float, seed: int) -> None:
    count = max(1, round(share * len(targets)))
    chosen = stratified_sample(targets, count, np.random.default_rng(seed))
    assert len(chosen) == count
    assert np.all(np.diff(chosen) > 0)
    exact = np.bincount(targets) * count / len(targets)
    got = np.bincount(targets[chosen], minlength=len(exact))
    assert np.all(np.abs(got - exact) < 1 + 1e-9)


@given(targets=labels, data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_train_and_test_share_no_row(targets: IntArray, data: st.DataObject, seed: int) -> None:
    test = data.draw(st.integers(1, len(targets) - 1))
    rows = data.draw(st.none() | st.integers(1, len(targets) - test))
    if rows is None and len(targets) - test < 1:
        return
    train, tests = split(targets, rows, test, 1, np.random.default_rng(seed))
    assert len(tests) == test
    assert len(train) == (len(targets) - test if rows is None else rows)
    assert not set(train.tolist()) & set(tests.tolist())


def test_each_row_of_a_class_has_equal_probability() -> None:
    """300 rows in order; a sample that favoured early rows would show in the mean position."""
    targets = np.arange(300) % 3
    rng = np.random.default_rng(0)
    hits = np.zeros(300)
    for _ in range(2000):
        hits[stratified_sample(targets, 30, rng)] += 1
    assert hits.sum() == 60_000
    assert np.abs(hits - 200).max() < 5 * np.sqrt(200 * 0.9)


def test_all_rows_need_no_draw() -> None:
    rng = np.random.default_rng(0)
    assert sample(np.zeros(5, np.int64), None, rng).tolist() == [0, 1, 2, 3, 4]
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(("rows", "test", "path"), [(90, 20, "dataset.rows"), (None, 98, "dataset.test")])
def test_more_than_there_is_is_refused_with_the_numbers(rows: int | None, test: int, path: str) -> None:
    with pytest.raises(ComponentError, match=f"{test} test rows are more than the 100 rows") as caught:
        split(np.arange(100) % 10, rows, test, 10, np.random.default_rng(0))
    assert caught.value.path == path
