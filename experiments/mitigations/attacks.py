"""LiRA on all kinds of examples together: with shadow runs of the same mitigation, and without any mitigation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.roc import auc

_FLOOR = 1e-12
"""Smallest variance, as in LiRA."""


def adapted_auc(margin: FloatArray, is_in: BoolArray, kind: NDArray[np.str_]) -> float:
    """The AUC of LiRA whose shadow runs are the other runs of the same federation, so that it knows the mitigation.

    Scores are log likelihood ratios. They are computed kind by kind, since each has its own spread, and compared over
    all kinds.

    Args:
        margin: (R, m) log odds of the label.
        is_in: (R, m) coins.
        kind: (m,) the kind of each example, whose variances are pooled.
    """
    scores = np.full(margin.shape, np.nan)
    for name in np.unique(kind):
        rows = kind == name
        scores[:, rows] = Lira().scores(Signals(margin=margin[:, rows], is_in=is_in[:, rows]))
    return auc(scores, is_in).value


def transferred_auc(margin: FloatArray, shadows: FloatArray, is_in: BoolArray, kind: NDArray[np.str_]) -> float:
    """The same with shadow runs of a federation without the mitigation, which has the same coins.

    Run r is attacked with all shadow runs but the r-th, as in LiRA. The r-th has the coins of the target.
    """
    scores = np.full(margin.shape, np.nan)
    for name in np.unique(kind):
        rows = kind == name
        scores[:, rows] = transferred_scores(margin[:, rows], shadows[:, rows], is_in[:, rows])
    return auc(scores, is_in).value


def transferred_scores(margin: FloatArray, shadows: FloatArray, is_in: BoolArray) -> FloatArray:
    """(R, m) log likelihood ratios of margins (R, m) under the normal densities of shadow runs (R, m).

    With the margins as their own shadows, these are the scores of LiRA with a pooled variance.
    """
    scores = np.full(margin.shape, np.nan)
    for run in range(len(margin)):
        others = np.arange(len(margin)) != run
        sides = [_log_density(margin[run], shadows[others], mask[others]) for mask in (is_in, ~is_in)]
        scores[run] = sides[0] - sides[1]
    return scores


def _log_density(value: FloatArray, shadows: FloatArray, group: BoolArray) -> FloatArray:
    """log N(value; μ, σ²) up to a constant, (m,), with the means of the group (R, m) and their pooled variance."""
    is_used = group & np.isfinite(shadows)
    count = is_used.sum(0)
    mean = np.where(is_used, shadows, 0.0).sum(0) / np.maximum(count, 1)
    squares = float((np.where(is_used, shadows - mean, 0.0) ** 2).sum())
    freedom = int(np.maximum(count - 1, 0).sum())
    if not freedom:
        return np.full(len(value), np.nan)
    variance = max(squares / freedom, _FLOOR)
    standard = (value - mean) ** 2 / (variance * (1 + 1 / np.maximum(count, 1)))
    return np.where(count > 0, -0.5 * (np.log(variance) + standard), np.nan)
