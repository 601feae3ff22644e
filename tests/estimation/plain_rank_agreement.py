"""Rank agreement written out: every draw is a list of examples, ranked again."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import rankdata, spearmanr

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.rank_agreement import LOWEST


def plain_agreement(first: FloatArray, second: FloatArray) -> tuple[float, float, float, float]:
    """Split, both reliabilities, and the corrected correlation, of two quantities (2, H, n)."""
    split = 0.5 * (_mean_rho(first[0], second[1]) + _mean_rho(first[1], second[0]))
    own, other = _mean_rho(first[0], first[1]), _mean_rho(second[0], second[1])
    if not min(own, other) >= max(LOWEST, 2 / math.sqrt(first.shape[-1] - 1)):
        return split, own, other, math.nan
    return split, own, other, float(np.clip(split / math.sqrt(own * other), -1.0, 1.0))


def plain_draws(first: FloatArray, second: FloatArray, weights: FloatArray) -> FloatArray:
    """(B,) the corrected correlation in each draw, with the bounds of all n examples."""
    n, corrected = len(weights), []
    for weight in weights.T:
        drawn = np.repeat(np.arange(n), weight.astype(int))
        split, own, other, _ = plain_agreement(first[:, :, drawn], second[:, :, drawn])
        is_known = min(own, other) >= max(LOWEST, 2 / math.sqrt(n - 1))
        corrected.append(np.clip(split / math.sqrt(own * other), -1.0, 1.0) if is_known else math.nan)
    return np.array(corrected)


def plain_student(first: FloatArray, second: FloatArray) -> float:
    """Σ z / √(Σ z²) of the products z of centred ranks of length 1, averaged over halvings and both crossings."""
    z = np.zeros(first.shape[-1])
    for a, b in ((first[0], second[1]), (first[1], second[0])):
        for one, other in zip(a, b, strict=True):
            z += np.prod([(r - r.mean()) / np.linalg.norm(r - r.mean()) for r in map(rankdata, (one, other))], axis=0)
    return float(z.sum() / np.linalg.norm(z))


def _mean_rho(one: FloatArray, other: FloatArray) -> float:
    """The mean over halvings of Spearman's correlation; 0 where a side is constant."""
    rhos = [spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in zip(one, other, strict=True)]
    return float(np.mean(rhos))
