"""Imputation: guesses of a column from the other columns and the label, by a logistic regression without any model."""

from __future__ import annotations

import warnings

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray


def logistic_probabilities(features: FloatArray, values: IntArray, asked: FloatArray, count: int) -> FloatArray:
    """(q, V) P(value | features) of q asked rows by a logistic regression that is fitted to n other rows.

    Its penalty is that of scikit-learn by default, half the squared length of the weights. A value that no row has gets
    0. With one value among all rows, that value gets 1.

    Args:
        features: (n, d) of the rows it is fitted to.
        values: (n,) their values, 0 to V − 1.
        asked: (q, d) of the rows that are asked about.
        count: V.

    Examples:
        >>> rows = np.array([[0.0], [0.0], [1.0], [1.0]])
        >>> found = logistic_probabilities(10 * rows, np.array([0, 0, 2, 2]), 10 * rows[1:3], 3)
        >>> found.argmax(1).tolist(), found[:, 1].tolist()
        ([0, 2], [0.0, 0.0])
    """
    present = np.unique(values)
    found = np.zeros((len(asked), count))
    if len(present) == 1:
        found[:, present[0]] = 1.0
        return found
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(max_iter=300).fit(features, values)
    found[:, fitted.classes_] = fitted.predict_proba(asked)
    return found


def shares_of_largest(scores: FloatArray) -> FloatArray:
    """(..., V) the probability that each value is guessed: 1 for the largest score, and equal shares among ties.

    NaN where a score is NaN.

    >>> shares_of_largest(np.array([[0.2, 0.4, 0.4], [1.0, 0.0, np.nan]])).tolist()
    [[0.0, 0.5, 0.5], [nan, nan, nan]]
    """
    largest = scores.max(axis=-1, keepdims=True)
    is_largest = scores == largest
    with np.errstate(invalid="ignore"):
        shares = is_largest / is_largest.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(np.isnan(largest), np.nan, shares))
