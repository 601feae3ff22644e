"""Logistic regression of membership on the last values of a model sequence, trained on other runs or other examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.attack import Signals

TrainedOn = Literal["other_runs", "other_examples"]

_STEPS = 25
"""Steps of Newton at most."""

_CHORD_STEPS = 20
"""Steps at most from the weights of all runs to those without one run, with the curvature at the former."""

_SMALL = 1e-7
"""Steps end where no weight changes by more."""


def score_function(
    signals: Signals, quantities: Sequence[FloatArray], length: int, ridge: float, trained_on: TrainedOn
) -> Callable[[BoolArray], FloatArray]:
    """Scores (R, m) as a function of the coins: log odds of membership by a classifier that did not see the target.

    It reads the last values of each of these quantities (S, R, m). With `other_runs` they are measured from the mean
    of the example over runs. The classifier of run r is trained on all examples in the other runs. With
    `other_examples` values are measured from the mean of the run over examples. Examples fall into two halves, and the
    classifier of one is trained on the other half in the same run. Values are divided by their standard deviation, and
    there is no intercept.
    """
    axis = 0 if trained_on == "other_runs" else 1
    columns = standardise(np.concatenate([last_values(values, length) for values in quantities], axis=2), axis)
    is_scored = ~np.isnan(signals.margin)
    columns[~is_scored] = 0.0
    penalty = ridge * columns.shape[2]

    def scores(is_in: BoolArray) -> FloatArray:
        if not columns.size:
            return np.full(is_in.shape, np.nan)
        if trained_on == "other_runs":
            weights = weights_without_run(columns, is_in, is_scored, penalty)
            odds = np.einsum("rmd,rd->rm", columns, weights)
            is_trained = (is_scored.sum() - is_scored.sum(1, keepdims=True)) > 0
        else:
            odds, is_trained = _from_other_half(columns, is_in, is_scored, penalty)
        return np.where(is_scored & is_trained, odds, np.nan)

    return scores


def last_values(values: FloatArray, length: int) -> FloatArray:
    """(R, m, length) the last values of each sequence (S, R, m), ending with the latest; NaN where there are fewer.

    Rounds in which an example has no value in any run are skipped.

    >>> series = np.array([[[1.0, 5.0]], [[2.0, np.nan]], [[3.0, 7.0]]])
    >>> last_values(series, 2).tolist()
    [[[2.0, 3.0], [5.0, 7.0]]]
    """
    is_known: BoolArray = np.isnan(values).sum(axis=1) < values.shape[1]
    later = np.cumsum(is_known[::-1], axis=0)[::-1]  # (S, m): how many known ones from here on
    last = np.full((*values.shape[1:], length), np.nan)
    for position in range(len(values)):
        columns = np.flatnonzero(is_known[position] & (later[position] <= length))
        last[:, columns, length - later[position, columns]] = values[position][:, columns]
    return last


def standardise(columns: FloatArray, axis: int) -> FloatArray:
    """Columns (R, m, d) measured from their mean along an axis, over their standard deviation; 0 where NaN."""
    is_known = ~np.isnan(columns)
    count = is_known.sum(axis, keepdims=True)
    centre = np.where(is_known, columns, 0.0).sum(axis, keepdims=True) / np.maximum(count, 1)
    gaps = np.where(is_known, columns - centre, 0.0)
    spread = np.sqrt((gaps**2).sum((0, 1)) / np.maximum(is_known.sum((0, 1)), 1))
    scale = np.abs(np.where(is_known, columns, 0.0)).max((0, 1), initial=0.0)
    return np.where(spread > 1e-9 * scale, gaps / np.where(spread > 0, spread, 1.0), 0.0)


def weights_without_run(columns: FloatArray, is_in: BoolArray, is_known: BoolArray, penalty: float) -> FloatArray:
    """(R, d) the weights of ridge logistic regression on all runs but one, for each run that is left out.

    `columns` are measured from the mean over all runs. Without a run they are measured from the mean over the rest. If
    not, the rest would sum to minus the run that was left out, and classifiers would know its coins without any
    memorisation.
    """
    runs, m, d = columns.shape
    known, target = is_known.astype(np.float64), is_in.astype(np.float64)
    everywhere = _newton(columns.reshape(1, -1, d), target.reshape(1, -1), is_known.reshape(1, -1), penalty)[0]
    odds = columns @ everywhere
    slopes = _sigmoid(odds) * _sigmoid(-odds) * known
    by_run = np.einsum("rmd,rm,rme->rde", columns, slopes, columns)
    curvature = by_run.sum(0) - by_run + penalty * np.eye(d)
    shift = columns / np.maximum(known.sum(0) - 1, 1)[:, None]
    weights = np.tile(everywhere, (runs, 1))
    flat = columns.reshape(-1, d)
    for _ in range(_CHORD_STEPS):
        odds = (flat @ weights.T).reshape(runs, m, runs) + np.einsum("tmd,td->mt", shift, weights)
        gaps = (target[:, :, None] - _sigmoid(odds)) * known[:, :, None]
        gaps[np.arange(runs), :, np.arange(runs)] = 0.0
        slope = gaps.reshape(-1, runs).T @ flat + np.einsum("mt,tmd->td", gaps.sum(0), shift) - penalty * weights
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        weights = weights + step
        if np.abs(step).max(initial=0.0) < _SMALL:
            break
    return weights


def _from_other_half(
    columns: FloatArray, is_in: BoolArray, is_known: BoolArray, penalty: float
) -> tuple[FloatArray, BoolArray]:
    """Log odds (R, m) of each half of the examples from the other half in the same run, and whether that has any."""
    odds, is_trained = np.full(is_in.shape, np.nan), np.zeros(is_in.shape, dtype=bool)
    halves: tuple[IntArray, IntArray] = (np.arange(0, is_in.shape[1], 2), np.arange(1, is_in.shape[1], 2))
    for scored, known in (halves, halves[::-1]):
        weights = _newton(columns[:, known], is_in[:, known].astype(np.float64), is_known[:, known], penalty)
        odds[:, scored] = np.einsum("rmd,rd->rm", columns[:, scored], weights)
        is_trained[:, scored] = is_known[:, known].any(1, keepdims=True)
    return odds, is_trained


def _newton(columns: FloatArray, target: FloatArray, is_known: BoolArray, penalty: float) -> FloatArray:
    """(B, d) the weights that minimise log loss plus penalty/2 times their square, for B problems at once."""
    weights = np.zeros((len(columns), columns.shape[2]))
    ridge = penalty * np.eye(columns.shape[2])
    for _ in range(_STEPS):
        odds = np.einsum("bnd,bd->bn", columns, weights)
        shares = _sigmoid(odds)
        slope = np.einsum("bnd,bn->bd", columns, (target - shares) * is_known) - penalty * weights
        bend = (shares * (1 - shares) * is_known)[:, :, None] * columns
        step = np.linalg.solve(np.swapaxes(columns, 1, 2) @ bend + ridge, slope[:, :, None])[:, :, 0]
        # a long step may overshoot where classes are far apart
        step *= np.minimum(1.0, 5.0 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
        weights += step
        if np.abs(step).max(initial=0.0) < _SMALL:
            break
    return weights


def _sigmoid(odds: FloatArray) -> FloatArray:
    from scipy.special import expit

    return np.asarray(expit(odds))
