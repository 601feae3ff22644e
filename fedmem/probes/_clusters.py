"""The interval of a mean whose values come in clusters that share a model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from fedmem.types import FloatArray


def mean_interval(values: FloatArray, clusters: Sequence[Hashable], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of n values in G clusters, with the spread taken between clusters.

    With residual sums `e_g` the variance is `G / (G - 1) * sum e_g^2 / n^2`, and t has G - 1 degrees of freedom. Probes
    often see only a handful of clusters, where percentile bootstrap intervals are too narrow. One cluster has no
    interval (NaN, NaN), nor have values of which any is NaN; equal values have an interval of width zero.

    >>> [round(end, 3) for end in mean_interval(np.array([1.0, 2.0, 3.0]), ["a", "b", "c"])]
    [-0.484, 4.484]
    >>> mean_interval(np.array([1.0, 2.0, 3.0]), ["a", "a", "a"])
    (nan, nan)
    """
    names = {name: g for g, name in enumerate(dict.fromkeys(clusters))}
    if len(names) < 2 or np.isnan(values).any():
        return math.nan, math.nan
    from scipy.special import stdtrit

    middle = float(values.mean())
    sums = np.bincount([names[name] for name in clusters], weights=values - middle)
    variance = len(names) / (len(names) - 1) * float(np.square(sums).sum()) / len(values) ** 2
    half = float(stdtrit(len(names) - 1, (1 + level) / 2)) * math.sqrt(variance)
    return middle - half, middle + half
