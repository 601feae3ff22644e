"""A normal law of a value whose mean and spread both depend on features, fitted with a ridge penalty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import FloatArray

_STEPS = 20
"""Steps of the fit; the likelihood stops rising earlier."""

FLOOR = 1e-6
"""Smallest variance, where values have a variance of about 1."""


@dataclass(frozen=True, kw_only=True)
class GaussianHead:
    """A normal law of a value given features x (d,): mean x·w, variance exp(x·g), and the errors of both by the fit.

    `mean_errors` and `log_variance_errors` (d, d) are the covariances of w and of g.
    """

    mean_weights: FloatArray
    log_variance_weights: FloatArray
    mean_errors: FloatArray
    log_variance_errors: FloatArray

    @classmethod
    def fit(cls, rows: FloatArray, values: FloatArray, ridge: float) -> GaussianHead:
        """The head that minimises Σ ½ (x·g + (v − x·w)² / exp(x·g)) + ridge · ½ (‖w‖² + ‖g‖²), for n rows (n, d).

        The first column, the 1, has no penalty. Means and log variances are fitted in turn, by weighted least squares
        and by Fisher scoring. A squared residual is divided by 1 − its leverage, its expectation in units of σ².
        """
        penalty = np.diag(np.where(np.arange(rows.shape[1]) == 0, 1e-9, ridge))
        log_variance_errors = np.linalg.inv(rows.T @ rows / 2 + penalty)
        scoring = log_variance_errors @ rows.T / 2
        log_weights = np.zeros(rows.shape[1])
        log_weights[0] = np.log(max(float(values.var()), FLOOR))
        for _ in range(_STEPS):
            fitted = np.maximum(rows @ log_weights, np.log(FLOOR))
            weighted = rows * np.exp(-fitted)[:, None]
            covariance = np.linalg.inv(rows.T @ weighted + penalty)
            mean_weights = covariance @ (weighted.T @ values)
            leverage = np.minimum(((weighted @ covariance) * rows).sum(1), 0.99)
            squares = (values - rows @ mean_weights) ** 2 * np.exp(-fitted) / (1 - leverage)
            step = scoring @ (fitted + squares - 1) - log_weights
            log_weights = log_weights + step / max(1.0, float(np.abs(rows @ step).max()))
        return cls(
            mean_weights=mean_weights,
            log_variance_weights=log_weights,
            mean_errors=covariance,
            log_variance_errors=log_variance_errors,
        )

    def standardise(self, rows: FloatArray, values: FloatArray) -> FloatArray:
        """Standard normal scores of values given rows: Φ⁻¹ of the quantile level of each value.

        A new value differs from the fitted mean by its own spread and by the error of the mean. Its spread is known up
        to the error of its logarithm. So the level is that of a t law, with 2 / error² degrees of freedom.

        >>> head = GaussianHead(
        ...     mean_weights=np.array([1.0]), log_variance_weights=np.array([0.0]), mean_errors=np.array([[3.0]]),
        ...     log_variance_errors=np.array([[1e-9]]),
        ... )
        >>> head.standardise(np.ones((1, 1)), np.array([5.0])).round(4).tolist()
        [2.0]
        """
        from scipy.stats import norm, t

        variance = np.exp(np.maximum(rows @ self.log_variance_weights, np.log(FLOOR)))
        variance = variance + ((rows @ self.mean_errors) * rows).sum(1)
        freedom = 2 / ((rows @ self.log_variance_errors) * rows).sum(1)
        standard = (values - rows @ self.mean_weights) / np.sqrt(variance)
        return np.asarray(np.sign(standard) * norm.isf(np.maximum(t.sf(np.abs(standard), freedom), 1e-300)))
