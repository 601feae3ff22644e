"""Stratified samples of rows, which several data sets draw their test set with."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.errors import ComponentError


def stratified_sample(targets: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """`count` sorted positions of which every class has its exact share, rounded up or down.

    >>> positions = stratified_sample(np.array([0] * 6 + [1] * 3), 3, np.random.default_rng(0))
    >>> int((positions < 6).sum()), int((positions >= 6).sum())
    (2, 1)
    """
    # A systematic sample from the rows in order of label gives every class its share, and exactly `count` rows.
    total = len(targets)
    shuffled = rng.permutation(total)
    by_label = shuffled[np.argsort(targets[shuffled], kind="stable")]
    picks = np.floor((np.arange(count) + rng.random()) * (total / count)).astype(np.int64)
    return np.sort(by_label[picks])


def sample(targets: IntArray, count: int | None, rng: np.random.Generator) -> IntArray:
    """A stratified sample; for None all positions, and nothing is drawn."""
    return np.arange(len(targets)) if count is None else stratified_sample(targets, count, rng)


def split(
    targets: IntArray, rows: int | None, test: int, num_classes: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Sorted training and test positions: first the test set is drawn, then `rows` of what is left, None for all."""
    total = len(targets)
    if test + (rows or num_classes) > total:
        raise ComponentError(
            "dataset.rows" if rows else "dataset.test",
            f"{rows or 'at least ' + str(num_classes)} training and {test} test rows are more than the {total} rows "
            "of the data set; lower rows or test",
        )
    in_test = np.zeros(total, dtype=bool)
    in_test[stratified_sample(targets, test, rng)] = True
    rest = np.flatnonzero(~in_test)
    return rest[sample(targets[rest], rows, rng)], np.flatnonzero(in_test)
