"""How much of what was true is in a reconstruction, by the row that stands for it, and what a guess would have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.modalities.pairing import assign
from fedmem.modalities.tables import column_slices, is_right_cell
from fedmem.modalities.texts import similarity

Rows = NDArray[np.float32]


def right_cells(found: Rows, truth: Rows, blocks: Sequence[int], tolerance: FloatArray) -> BoolArray:
    """(n, B) whether each cell of n true rows is right, rows being paired so that most cells are."""
    hit = is_right_cell(found, truth, blocks, tolerance)
    return np.asarray(hit[assign(1.0 - hit.mean(axis=2)), np.arange(len(truth))])


def right_tokens(found: IntArray, truth: IntArray) -> FloatArray:
    """(n,) shares of the tokens of n texts of one length that are found, texts being paired by likeness."""
    alike = similarity(found, truth)
    return np.asarray(alike.tokens[assign(1.0 - alike.both), np.arange(len(truth))])


def independent_rows(population: Rows, blocks: Sequence[int], count: int, rng: np.random.Generator) -> Rows:
    """(count, width) rows whose cells are drawn each from its own column of the population, whatever the others are."""
    drawn = rng.integers(len(population), size=(count, len(blocks)))
    return np.concatenate([population[drawn[:, b]][:, part] for b, part in enumerate(column_slices(blocks))], axis=1)
