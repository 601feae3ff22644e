"""Calibration by the other runs without an example, leave one run out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray


def minus_other_outs(values: FloatArray) -> Callable[[BoolArray], FloatArray]:
    """Values (R, m) minus their mean over the other out runs of the example, as a function of the coins (R, m).

    NaN where the value is NaN, and where no other out run has one.

    >>> values = np.array([[5.0], [1.0], [3.0]])
    >>> minus_other_outs(values)(np.array([[True], [False], [False]])).tolist()
    [[3.0], [-2.0], [2.0]]
    """
    is_measured = ~np.isnan(values)
    filled = np.where(is_measured, values, 0.0)

    def calibrate(is_in: BoolArray) -> FloatArray:
        outs = is_measured & ~is_in
        count = outs.sum(0) - outs
        mean = ((filled * outs).sum(0) - filled * outs) / np.maximum(count, 1)
        return np.where(is_measured & (count > 0), values - mean, np.nan)

    return calibrate
