"""Cylinders, bells and funnels: made time series of three classes, with a published law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Dataset, Examples
from fedmem.modalities.series import Series

LOW, HIGH = -4.0, 11.0
"""The values that become 0 and 1. An event is 6 high on average; with noise its standard deviation is about 1.4."""


@dataclass(frozen=True, kw_only=True)
class CylinderBellFunnel:
    """Series x = (v + 4) / 15, clipped to [0, 1], of an event in noise: v(t) = (6 + h) f_y(t) + e(t).

    The event lasts from a to b; a is uniform in L/8 .. L/4 and b - a in L/4 .. 3L/4, whole numbers, L the length. The
    height h and the noise e(t) are standard normal. The classes y, drawn uniformly, are the shapes f_y between a and b
    (0 elsewhere): 0 cylinder, 1; 1 bell, (t - a) / (b - a); 2 funnel, (b - t) / (b - a). Channels have events and noise
    of their own, of one class. `natural` is the sensor of a training row, dealt out evenly, whose events are
    multiplied by a gain of its own, uniform in 1 - `spread` .. 1 + `spread`. Test rows have sensors at random.

    Fields

    - `rows`: training rows.
    - `test`: test rows.
    - `length`: L, places of a series.
    - `channels`: channels of a series.
    - `sensors`: natural owners of training rows.
    - `spread`: how far the gain of a sensor may be from 1.

    Guarantees: a function of the fields and `rng` alone; nothing is downloaded.

    >>> data = CylinderBellFunnel(rows=60, test=20, channels=2).load(np.random.default_rng(0))
    >>> data.train.inputs.shape, data.num_classes, data.modality.kind
    ((60, 2, 64), 3, 'series')

    Reference: Saito (1994), Local Feature Extraction and Its Applications Using a Library of Bases, there with L = 128.
    """

    rows: Annotated[int, annotated_types.Ge(1)] = 1000
    test: Annotated[int, annotated_types.Ge(1)] = 200
    length: Annotated[int, annotated_types.Ge(16)] = 64
    channels: Annotated[int, annotated_types.Ge(1)] = 1
    sensors: Annotated[int, annotated_types.Ge(1)] = 10
    spread: Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)] = 0.3

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the gains, then the rows."""
        total = self.rows + self.test
        gains = rng.uniform(1 - self.spread, 1 + self.spread, size=self.sensors)
        natural = rng.permutation(np.arange(self.rows) % self.sensors)
        owner = np.concatenate([natural, rng.integers(self.sensors, size=self.test)])
        targets = rng.integers(3, size=total)
        values = gains[owner][:, None, None] * self._events(targets, rng)
        values += rng.standard_normal(values.shape)
        inputs = np.clip((values - LOW) / (HIGH - LOW), 0, 1).astype(np.float32)
        examples = Examples(inputs=inputs, targets=targets, ids=np.arange(total))
        return Dataset(
            train=examples.take(np.arange(self.rows)),
            test=examples.take(np.arange(self.rows, total)),
            num_classes=3,
            modality=Series(),
            natural=natural,
        )

    def _events(self, targets: IntArray, rng: np.random.Generator) -> FloatArray:
        """(n, channels, L) events without noise."""
        shape, length = (len(targets), self.channels, 1), self.length
        begin = rng.integers(length // 8, length // 4 + 1, size=shape)
        lasts = rng.integers(length // 4, 3 * length // 4 + 1, size=shape)
        height = 6 + rng.standard_normal(shape)
        place = (np.arange(length) - begin) / lasts
        shapes = np.stack([np.ones(place.shape), place, 1 - place])[targets, np.arange(len(targets))]
        return np.asarray(height * np.where((place >= 0) & (place <= 1), shapes, 0.0))
