"""Published statistics of copying by generative models, from distances between samples and rows."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray


def rank_sum_z(generated: FloatArray, held_out: FloatArray) -> float:
    """Z = (U − mn/2) / σ of m and n distances, where U counts pairs with d(generated) > d(held out), ties half.

    Below 0 where generated distances are smaller. σ² is the variance of U without an effect, mn(m + n + 1)/12, reduced
    for ties. 0 where all distances are tied, and NaN where a side is empty or has NaN.

    >>> rank_sum_z(np.array([0.0, 0.1]), np.array([0.5, 0.6])).__round__(3)
    -1.549
    """
    from scipy.stats import rankdata

    m, n = len(generated), len(held_out)
    values = np.concatenate([generated, held_out])
    if not m or not n or np.isnan(values).any():
        return math.nan
    ranks = rankdata(values)
    u = float(ranks[:m].sum()) - m * (m + 1) / 2
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    total = m + n
    variance = m * n / 12 * (total + 1 - float((counts**3 - counts).sum()) / (total * (total - 1)))
    return (u - m * n / 2) / math.sqrt(variance) if variance > 0 else 0.0


def data_copying(
    generated: FloatArray,
    held_out: FloatArray,
    generated_cell: IntArray | None = None,
    held_out_cell: IntArray | None = None,
    min_share: float = 0.0,
) -> float:
    """C_T = Σ_π P(π) Z_π / Σ_π P(π) over cells π that have more than `min_share` of the samples.

    Args:
        generated: (m,) distance of each sample from the nearest training row.
        held_out: (n,) the same of rows that were not trained on.
        generated_cell: (m,) the cell of each sample; all are in one cell by default.
        held_out_cell: (n,) the cell of each held-out row.
        min_share: τ, a share of the samples.

    Returns:
        Far below 0 where samples are copies, far above 0 where the model underfits, about N(0, 1) for samples from the
        distribution of the data. Cells without held-out rows have P(π) = 0. NaN without any other cell.

    Reference: Meehan, Chaudhuri and Dasgupta (2020), A non-parametric test to detect data-copying in generative models.

    >>> data_copying(np.zeros(50), np.ones(50)) < -8
    True
    """
    first = np.zeros(len(generated), dtype=np.int64) if generated_cell is None else generated_cell
    second = np.zeros(len(held_out), dtype=np.int64) if held_out_cell is None else held_out_cell
    total = weight = 0.0
    for cell in np.unique(second).tolist():
        inside = first == cell
        if not inside.any() or inside.mean() <= min_share:
            continue
        share = float((second == cell).mean())
        total += share * rank_sum_z(generated[inside], held_out[second == cell])
        weight += share
    return total / weight if weight else math.nan


def authenticity(distances: FloatArray, between: FloatArray) -> float:
    """The share of samples g with d(g, r*) > d(r*, nearest other real row), where r* is the real row nearest to g.

    Args:
        distances: (m, n) of samples from real rows.
        between: (n, n) of real rows from each other.

    Returns:
        0..1; 0 where all samples are copies. An exact copy is never authentic, also where a real row is there twice. Of
        real rows that are equally near, r* is the first. NaN with fewer than two real rows, without samples, and with
        NaN.

    Reference: Alaa, van Breugel, Saveliev and van der Schaar (2022), How faithful is your synthetic data?

    >>> real = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> authenticity(np.array([[0.2, 0.8], [1.5, 2.5]]), real)
    0.5
    """
    if len(between) < 2 or not len(distances) or np.isnan(distances).any() or np.isnan(between).any():
        return math.nan
    others = np.where(np.eye(len(between), dtype=bool), np.inf, between).min(axis=1)
    nearest = distances.argmin(axis=1)
    return float((distances.min(axis=1) > others[nearest]).mean())
