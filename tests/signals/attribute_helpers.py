"""A table with one sensitive category, and models of it that a test writes by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.data import Examples
from fedmem.modalities.modality import Modality
from fedmem.modalities.tables import Tables

Answer = Callable[[NDArray[np.float32]], FloatArray]
"""Inputs (n, width) -> logits (n, C)."""

BLOCKS = (1, 3, 2)
"""A number, the sensitive category, and another category."""


def rows_of(values: Any, labels: Any, *, numbers: Any = None, others: Any = None, first_id: int = 0) -> Examples:
    """Rows with these values of the sensitive category; −1 for entries that are all 0."""
    values, labels = np.asarray(values, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    inputs = np.zeros((len(values), sum(BLOCKS)), dtype=np.float32)
    inputs[:, 0] = 0.5 if numbers is None else numbers
    inputs[np.flatnonzero(values >= 0), 1 + values[values >= 0]] = 1
    inputs[
        np.arange(len(values)),
        4 + (np.zeros(len(values), dtype=np.int64) if others is None else np.asarray(others, dtype=np.int64)),
    ] = 1
    return Examples(inputs=inputs, targets=labels, ids=first_id + np.arange(len(values)))


@dataclass
class Audited:
    """The examples of an audit."""

    examples: Examples


@dataclass
class Table:
    """The part of a federation that attribute inference reads."""

    examples: Examples
    population: Examples
    test: Examples
    modality: Modality = field(default_factory=lambda: Tables(blocks=BLOCKS))
    num_classes: int = 2

    @property
    def audit(self) -> Audited:
        return Audited(self.examples)

    @property
    def store(self) -> Examples:
        return self.examples


class Context:
    """The part of a context that attribute inference reads, with models written as functions."""

    def __init__(self, table: Table, *models: Answer) -> None:
        self.federation, self.examples, self.transitions = table, table.examples, models

    def logits_of(self, inputs: NDArray[np.float32]) -> FloatArray:
        return np.stack([model(inputs) for model in self.transitions])


def table(values: Any, labels: Any, *, public: Any = (0, 0, 1, 2), population: Any = None, **more: Any) -> Table:
    """A table whose public rows have these values, by default half of them value 0."""
    return Table(
        examples=rows_of(values, labels, **more),
        population=rows_of(public, np.zeros(len(public)), first_id=1000) if population is None else population,
        test=rows_of([], [], first_id=2000),
    )
