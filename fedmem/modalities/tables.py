"""Tables: rows of numbers and categories, which cells of a reconstruction are right, and the modal row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.data import Examples
from fedmem.modalities.numbers import Numbers

Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Tables(Numbers):
    """Rows (width,) of numbers in [0, 1]. Neighbouring columns have nothing in common.

    Reconstructions also have the reading `cells`, the share of cells that are right (`is_right_cell`). Where columns
    are described and there is a population, they have `cells_gain`: `cells` minus the share of the modal row of the
    population.

    Attributes:
        blocks: The sizes of consecutive groups of columns: 1 for a number, k > 1 for a category as a one-hot of k. They
            add up to the width. Empty where columns are not described.

    >>> Tables(blocks=(1, 3)).numeric((4,)).tolist(), Tables(blocks=(1, 3)).any_values
    ([True, False, False, False], False)
    """

    kind: ClassVar[str] = "tables"

    blocks: tuple[int, ...] = ()

    def problem(self, shape: tuple[int, ...], num_classes: int) -> str:
        """A row has one axis, which the blocks fill."""
        if len(shape) != 1:
            return f"rows of a table have shape (width,), not {shape}"
        if self.blocks and sum(self.blocks) != shape[0]:
            return f"blocks {self.blocks} add up to {sum(self.blocks)} columns, but rows have {shape[0]}"
        return ""

    @property
    def any_values(self) -> bool:
        """Only where no columns are described: a category is a one-hot."""
        return not self.blocks

    def columns(self, width: int) -> tuple[int, ...]:
        """The blocks of rows of this width: numbers, where columns are not described."""
        return self.blocks or (1,) * width

    def numeric(self, shape: tuple[int, ...]) -> BoolArray:
        """The columns that are no category."""
        return np.repeat(np.array(self.columns(shape[0])) == 1, self.columns(shape[0]))

    def text(self, inputs: Rows, targets: NDArray[Any]) -> str:
        """The value of each column, by its number: a number in [0, 1], or a category.

        >>> Tables(blocks=(1, 3)).text(np.array([0.25, 0, 1, 0], np.float32), np.array(0))
        'column 1=0.25, column 2=category 2 of 3'
        """
        blocks = self.columns(len(inputs))
        values = cells(inputs[None], blocks)[0].tolist()
        pairs = enumerate(zip(values, blocks, strict=True), 1)
        return ", ".join(
            f"column {place}=" + (f"category {int(value) + 1} of {width}" if width > 1 else f"{value:.3g}")
            for place, (value, width) in pairs
        )

    def details(
        self, reconstructions: Rows, truth: Rows, errors: FloatArray, population: Examples
    ) -> dict[str, FloatArray]:
        """Mean squared error and shares of right cells."""
        readings = {"mse": errors}
        if self.blocks and len(population):
            tolerance, modal = tolerances(population.inputs, self.blocks), modal_row(population.inputs, self.blocks)
            readings["cells"], guessed = (
                np.array(
                    [
                        is_right_cell(row[None], true[None], self.blocks, tolerance).mean()
                        for row, true in zip(rows, truth, strict=True)
                    ]
                )
                for rows in (reconstructions, np.repeat(modal, len(truth), axis=0))
            )
            readings["cells_gain"] = readings["cells"] - guessed
        return readings


SHARE = 0.319
"""The tolerance for a number, in standard deviations of its column: the mean of a normal one is so near in 25 %."""


def column_slices(blocks: Sequence[int]) -> list[slice]:
    """The columns of each block of a table, as in `Tables.blocks`.

    >>> column_slices((1, 3))
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
    columns = [
        rows[:, part].argmax(1) if part.stop - part.start > 1 else rows[:, part.start] for part in column_slices(blocks)
    ]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.empty((len(rows), 0))


def tolerances(rows: Rows, blocks: Sequence[int], share: float = SHARE) -> FloatArray:
    """(B,) how far a number may be from the truth: `share` of its column's standard deviation, 0 for categories.

    The rows should be those of the population, so that the measure does not depend on the attacked client. A column
    that is the same everywhere has tolerance 0.

    >>> tolerances(np.array([[0.0, 1, 0], [1.0, 0, 1]], np.float32), (1, 2)).tolist()
    [0.1595, 0.0]
    """
    spread = cells(rows, blocks).std(axis=0)
    return np.where(np.array(blocks) > 1, 0.0, share * spread)


def is_right_cell(reconstructions: Rows, truth: Rows, blocks: Sequence[int], tolerance: FloatArray) -> BoolArray:
    """(m, n, B) whether each cell of m reconstructed rows is that of each of n true ones: same category, near number.

    Numbers are compared in float64 with a slack of 1e-6, about the rounding of float32; NaN is never right.
    """
    first, second = cells(reconstructions, blocks), cells(truth, blocks)
    with np.errstate(invalid="ignore"):
        hit: BoolArray = np.abs(first[:, None] - second[None]) <= tolerance + np.where(np.array(blocks) > 1, 0.0, 1e-6)
    for b, part in enumerate(column_slices(blocks)):
        hit[~np.isfinite(reconstructions[:, part]).all(axis=1), :, b] = False
    return hit


def modal_row(population: Rows, blocks: Sequence[int]) -> Rows:
    """(1, width) the guess of the most probable cell everywhere: the mode of each category, the mean of each number.

    Of equally frequent categories the first is taken.

    >>> modal_row(np.array([[0.0, 1, 0], [1.0, 0, 1], [0.5, 0, 1]], np.float32), (1, 2)).tolist()
    [[0.5, 0.0, 1.0]]
    """
    shares = population.mean(axis=0, dtype=np.float64)
    return _with_cells(
        np.array(
            [
                [
                    shares[part].argmax() if part.stop - part.start > 1 else shares[part.start]
                    for part in column_slices(blocks)
                ]
            ]
        ),
        blocks,
    )


def _with_cells(values: FloatArray, blocks: Sequence[int]) -> Rows:
    """(n, width) rows that have these cells (n, B)."""
    rows = np.zeros((len(values), sum(blocks)), dtype=np.float32)
    for b, part in enumerate(column_slices(blocks)):
        if part.stop - part.start > 1:
            rows[np.arange(len(values)), part.start + values[:, b].astype(np.int64)] = 1.0
        else:
            rows[:, part.start] = values[:, b]
    return rows


def to_one_hot(rows: Rows, blocks: Sequence[int]) -> Rows:
    """The rows with a one-hot where they have shares of categories; numbers stay as they are.

    >>> to_one_hot(np.array([[0.25, 0.4, 0.6]], np.float32), (1, 2)).tolist()
    [[0.25, 0.0, 1.0]]
    """
    return _with_cells(cells(rows, blocks), blocks)
