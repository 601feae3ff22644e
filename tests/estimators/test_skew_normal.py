"""Tests of `fedmem/estimators/_skew_normal.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import skewnorm

from fedmem.estimators._skew_normal import fit, log_cdf, positions
from tests.estimators.exposure_skewnormal_helpers import exact_quantiles, law


@pytest.mark.parametrize("shape", [-20.0, -3.0, 0.0, 0.5, 4.0, 30.0])
def test_log_cdf_agrees_with_scipy_where_scipy_has_digits(shape: float) -> None:
    x = skewnorm.ppf(np.array([1e-3, 0.01, 0.3, 0.9, 0.999]), shape, 1.5, 2.0)
    np.testing.assert_allclose(log_cdf(x, law(1.5, 2.0, shape)), skewnorm.logcdf(x, shape, 1.5, 2.0), rtol=1e-7)


def test_log_cdf_has_its_closed_forms_in_the_deep() -> None:
    z = np.array([-200.0, -38.0, -12.0, -6.0, -4.0, -3.0, -1.0])
    np.testing.assert_allclose(log_cdf(z, law(0, 1, 0)), log_ndtr(z), rtol=1e-10)
    np.testing.assert_allclose(log_cdf(z, law(0, 1, 1)), 2 * log_ndtr(z), rtol=1e-10)  # F = Φ²
    np.testing.assert_allclose(log_cdf(z, law(0, 1, -1)), log_ndtr(z) + np.log1p(1 - np.exp(log_ndtr(z))), rtol=1e-9)
    with np.errstate(divide="ignore"):
        assert np.isinf(skewnorm.logcdf(-38.0, 1))  # why it is not used


@pytest.mark.parametrize("shape", [-8.0, -2.0, 1.0, 3.0, 10.0])
def test_quantiles_of_a_skew_normal_give_it_back(shape: float) -> None:
    for count in (300, 1000, 10_000):
        found = fit(exact_quantiles(shape, 3.0, 0.7, count)[None], count)
        assert found.location[0] == pytest.approx(3.0, abs=0.005)
        assert found.scale[0] == pytest.approx(0.7, rel=0.005)
        assert found.shape[0] == pytest.approx(shape, rel=0.02)


def test_fits_of_many_samples_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    ordered = np.sort(rng.gamma(3, size=(6, 500)), axis=1)[:, positions(500)]
    together = fit(ordered, 500)
    for t in range(6):
        np.testing.assert_allclose(np.array(fit(ordered[t : t + 1], 500))[:, 0], np.array(together)[:, t])
    moved = fit(5 + 2 * ordered, 500)
    np.testing.assert_allclose(moved.location, 5 + 2 * together.location)
    np.testing.assert_allclose(moved.scale, 2 * together.scale)
    np.testing.assert_allclose(moved.shape, together.shape)


def test_quantiles_without_spread_or_finite_values_have_no_fit() -> None:
    line = np.linspace(0, 1, 256)
    ordered = np.stack([np.zeros(256), np.full(256, np.nan), np.append(line[:-1], np.inf), line])
    assert np.isnan(fit(ordered, 256).shape).tolist() == [True, True, True, False]
