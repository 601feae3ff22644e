"""How much of a rebuilt table is right, cell by cell, and what somebody would get who saw no update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.types import BoolArray, FloatArray, IntArray
from fedmem.modalities.images import assign

Rows = NDArray[np.float32]

SHARE = 0.319
"""The tolerance for a number, in standard deviations of its column: the mean of a normal one is so near in 25 %."""


def parts(blocks: Sequence[int]) -> list[slice]:
    """The columns of each block of a table, as in `Dataset.blocks`.

    >>> parts((1, 3))
    [slice(0, 1, None), slice(1, 4, None)]
    """
    ends = np.cumsum(blocks).tolist()
    return [slice(end - width, end) for end, width in zip(ends, blocks, strict=True)]


def cells(rows: Rows, blocks: Sequence[int]) -> FloatArray:
    """(n, B) what is in each of B cells of n rows: a number, or the position of a category.

    A category is the largest of its block, the first of equal ones.

    >>> cells(np.array([[0.25, 0.1, 0.9, 0.0]], np.float32), (1, 3)).tolist()
    [[0.25, 1.0]]
    """
    found = [rows[:, part].argmax(1) if part.stop - part.start > 1 else rows[:, part.start] for part in parts(blocks)]
    return np.stack(found, axis=1).astype(np.float64) if found else np.empty((len(rows), 0))


def tolerances(rows: Rows, blocks: Sequence[int], share: float = SHARE) -> FloatArray:
    """(B,) how far a number may be from the truth: `share` of its column's standard deviation, 0 for categories.

    The rows should be those of the population, so that the measure does not depend on who is attacked. A column that is
    the same everywhere has tolerance 0.

    >>> tolerances(np.array([[0.0, 1, 0], [1.0, 0, 1]], np.float32), (1, 2)).tolist()
    [0.1595, 0.0]
    """
    spread = cells(rows, blocks).std(axis=0)
    return np.where(np.array(blocks) > 1, 0.0, share * spread)


def right(found: Rows, truth: Rows, blocks: Sequence[int], tolerance: FloatArray) -> BoolArray:
    """(m, n, B) whether each cell of m rebuilt rows is that of each of n true ones: same category, near number.

    Numbers are compared in float64 with a slack of 1e-6, about the rounding of float32; NaN is never right.
    """
    first, second = cells(found, blocks), cells(truth, blocks)
    with np.errstate(invalid="ignore"):
        hit: BoolArray = np.abs(first[:, None] - second[None]) <= tolerance + np.where(np.array(blocks) > 1, 0.0, 1e-6)
    for b, part in enumerate(parts(blocks)):
        hit[~np.isfinite(found[:, part]).all(axis=1), :, b] = False
    return hit


@dataclass(frozen=True, kw_only=True)
class TableScores:
    """Of each of n true rows, the share of its cells that are right in the row that stands for it, 0..1.

    `accuracy` (n,) of all cells, `categorical` (n,) of the categories, `numeric` (n,) of the numbers within tolerance
    (NaN in a table without such columns); `place` (n,) of the rebuilt row.
    """

    accuracy: FloatArray
    categorical: FloatArray
    numeric: FloatArray
    place: IntArray


def score_rows(found: Rows, truth: Rows, blocks: Sequence[int], tolerance: FloatArray) -> TableScores:
    """Pair m rebuilt rows with n true ones so that most cells of all are right (Hungarian method), and count.

    With fewer rows than true ones each may stand for several, as in `image_metrics.assign`. Both are (·, width), at
    least one rebuilt row.

    >>> truth = np.array([[0.5, 1, 0], [0.9, 0, 1]], np.float32)
    >>> scores = score_rows(truth[::-1], truth, (1, 2), np.array([0.1, 0.0]))
    >>> scores.place.tolist(), scores.accuracy.tolist()
    ([1, 0], [1.0, 1.0])

    Reference: Vero, Balunović, Dimitrov and Vechev (2023), TabLeak: Tabular Data Leakage in Federated Learning.
    """
    hit = right(found, truth, blocks, tolerance)
    place = assign(1.0 - hit.mean(axis=2))
    own = hit[place, np.arange(len(truth))]
    wide = np.array(blocks) > 1
    return TableScores(
        accuracy=own.mean(axis=1),
        categorical=own[:, wide].mean(axis=1) if wide.any() else np.full(len(truth), np.nan),
        numeric=own[:, ~wide].mean(axis=1) if not wide.all() else np.full(len(truth), np.nan),
        place=place,
    )


def usual_row(population: Rows, blocks: Sequence[int]) -> Rows:
    """(1, width) the guess of the likeliest cell everywhere: the mode of each category, the mean of each number.

    Of equally frequent categories the first is taken.

    >>> usual_row(np.array([[0.0, 1, 0], [1.0, 0, 1], [0.5, 0, 1]], np.float32), (1, 2)).tolist()
    [[0.5, 0.0, 1.0]]
    """
    shares = population.mean(axis=0, dtype=np.float64)
    return _with_cells(
        np.array(
            [[shares[part].argmax() if part.stop - part.start > 1 else shares[part.start] for part in parts(blocks)]]
        ),
        blocks,
    )


def independent_rows(population: Rows, blocks: Sequence[int], count: int, rng: np.random.Generator) -> Rows:
    """(count, width) rows whose cells are drawn each from its own column of the population, whatever the others are."""
    known = cells(population, blocks)
    drawn = rng.integers(len(known), size=(count, len(blocks)))
    return _with_cells(np.take_along_axis(known, drawn, axis=0), blocks)


def _with_cells(values: FloatArray, blocks: Sequence[int]) -> Rows:
    """(n, width) rows that have these cells (n, B)."""
    found = np.zeros((len(values), sum(blocks)), dtype=np.float32)
    for b, part in enumerate(parts(blocks)):
        if part.stop - part.start > 1:
            found[np.arange(len(values)), part.start + values[:, b].astype(np.int64)] = 1.0
        else:
            found[:, part.start] = values[:, b]
    return found


def hardened(rows: Rows, blocks: Sequence[int]) -> Rows:
    """The rows with a one-hot where they have shares of categories; numbers stay as they are.

    >>> hardened(np.array([[0.25, 0.4, 0.6]], np.float32), (1, 2)).tolist()
    [[0.25, 0.0, 1.0]]
    """
    return _with_cells(cells(rows, blocks), blocks)
