"""Gaussian blobs, one per class: made data for tests and for studies in which the truth must be known."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Dataset, Examples
from fedmem.modalities.undescribed import modality_of_shape

BLOCK = 1 << 18
"""Numbers that are made at once in double precision: 2 MB stay in the cache of a core."""


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Rows x = 1/2 + (s u_y + t v_g + e) / 10, clipped to [0, 1].

    u_y is the random unit direction of class y, v_g that of natural group g, and e is standard normal noise. So
    `separation` s and `shift` t are in standard deviations of the noise, which is 0.1 per feature. A single feature
    further than five deviations from the middle is clipped. Classes are drawn uniformly. Groups are independent of
    classes, dealt out evenly in training and drawn uniformly in test. `ids` number the rows, training rows first.

    Fields

    - `rows`: training rows.
    - `test`: test rows.
    - `shape`: shape of one input, for example (1, 8, 8) for images or (20,) for plain features.
    - `classes`: number of classes.
    - `separation`: distance of a class centre from the middle, in standard deviations of the noise.
    - `groups`: natural owners of training rows; 0 for none.
    - `shift`: distance by which a natural group is moved, in standard deviations of the noise.

    Guarantees:

    - a function of the fields and `rng` alone;
    - the natural groups own equally many training rows, up to one.

    >>> data = Synthetic(rows=100, test=40, shape=(5,), classes=3).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, len(data.test), data.natural is None
    ((100, 5), 40, True)
    """

    rows: Annotated[int, annotated_types.Ge(1)] = 1000
    test: Annotated[int, annotated_types.Ge(1)] = 200
    shape: tuple[Annotated[int, annotated_types.Ge(1)], ...] = (1, 8, 8)
    classes: Annotated[int, annotated_types.Ge(2)] = 4
    separation: Annotated[float, annotated_types.Ge(0)] = 3.0
    groups: Annotated[int, annotated_types.Ge(0)] = 0
    shift: Annotated[float, annotated_types.Ge(0)] = 1.0

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the centres, then the rows."""
        total, features = self.rows + self.test, math.prod(self.shape)
        centres = self._directions(self.classes, features, rng)
        targets = rng.integers(self.classes, size=total)
        block = max(1, BLOCK // features)
        noise, natural, owner, shifts = rng, None, None, np.zeros((0, features))
        if self.groups:
            # Groups are drawn after the noise, which is drawn twice rather than held in double precision until then.
            noise = deepcopy(rng)
            for start in range(0, total, block):
                rng.standard_normal((min(block, total - start), features))
            natural = rng.permutation(np.arange(self.rows) % self.groups)
            owner = np.concatenate([natural, rng.integers(self.groups, size=self.test)])
            shifts = self.shift * self._directions(self.groups, features, rng)
        inputs = np.empty((total, features), dtype=np.float32)
        for start in range(0, total, block):
            rows = slice(start, min(start + block, total))
            points = self.separation * centres[targets[rows]] + noise.standard_normal(inputs[rows].shape)
            if owner is not None:
                points += shifts[owner[rows]]
            inputs[rows] = np.clip(0.5 + points / 10, 0, 1)
        return self._dataset(inputs.reshape(total, *self.shape), targets, natural)

    def _dataset(self, inputs: NDArray[np.float32], targets: IntArray, natural: IntArray | None) -> Dataset:
        """Training rows as a view, which costs nothing; test rows as a copy, which holds on to no training row."""
        ids, first = np.arange(len(targets)), self.rows
        return Dataset(
            train=Examples(inputs=inputs[:first], targets=targets[:first], ids=ids[:first]),
            test=Examples(inputs=inputs, targets=targets, ids=ids).take(np.arange(first, len(ids))),
            num_classes=self.classes,
            modality=modality_of_shape(self.shape),
            natural=natural,
        )

    @staticmethod
    def _directions(count: int, features: int, rng: np.random.Generator) -> FloatArray:
        """(count, features) independent, uniformly random unit vectors."""
        raw = rng.standard_normal((count, features))
        units: FloatArray = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return units
