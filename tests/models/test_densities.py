"""Tests of `fedmem/models/_densities.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fedmem.models._densities import bernoulli_log_p, normal_log_p


def test_densities_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, mean = rng.normal(size=(2, 3, 4))
    found = normal_log_p(torch.tensor(x), torch.tensor(mean), torch.tensor(0.3, dtype=torch.float64))
    np.testing.assert_allclose(found, np.asarray(stats.norm.logpdf(x, mean, np.exp(0.3))).sum(axis=1))
    bits, logits = (rng.random((3, 4)) < 0.5).astype(float), rng.normal(size=(3, 4))
    expected = np.asarray(stats.bernoulli.logpmf(bits, 1 / (1 + np.exp(-logits)))).sum(axis=1)
    np.testing.assert_allclose(bernoulli_log_p(torch.tensor(bits), torch.tensor(logits)), expected)


def test_sure_pixels_have_finite_log_probabilities() -> None:
    assert bernoulli_log_p(torch.zeros(1), torch.tensor([200.0])).item() == pytest.approx(-200)
    assert bernoulli_log_p(torch.ones(1), torch.tensor([torch.nan])).isnan()
