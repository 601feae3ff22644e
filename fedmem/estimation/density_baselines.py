"""Log-densities that a model has to exceed to have learnt anything: those of simple distributions of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray


def one_distribution(inputs: NDArray[Any], binary: bool) -> FloatArray:
    """(n,) log p in nats of rows (n, *shape) whose pixels all have one distribution, the best for exactly these rows.

    For binary pixels it is the share of ones, otherwise a normal distribution. NaN where all pixels are equal, since
    no model can exceed it then.

    >>> one_distribution(np.array([[1, 0], [0, 0]]), True).round(2).tolist()
    [-1.67, -0.58]
    """
    x = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    if x.size == 0 or np.ptp(x) == 0:
        return np.full(len(x), np.nan)
    if binary:
        share = x.mean()
        return np.asarray((x * np.log(share) + (1 - x) * np.log1p(-share)).sum(axis=1))
    variance = x.var()
    return np.asarray(-0.5 * ((x - x.mean()) ** 2 / variance + np.log(2 * np.pi * variance)).sum(axis=1))


def independent_pixels(inputs: NDArray[Any], binary: bool) -> float:
    """Mean log p in nats of rows under independent pixels, the best for exactly these rows; NaN if not binary.

    >>> round(independent_pixels(np.array([[1, 0], [0, 0]]), True), 2)
    -0.69
    """
    from scipy.special import entr

    if not binary or len(inputs) == 0:
        return float("nan")
    share = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1).mean(axis=0)
    return -float((entr(share) + entr(1 - share)).sum())
