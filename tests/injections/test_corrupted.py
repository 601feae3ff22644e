"""Tests of `fedmem/injections/corrupted.py`."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedmem.injections.corrupted import Corrupted
from tests.injections.atypical_helpers import SPACE, clean, plan


def test_noise_is_normal_with_the_stated_spread() -> None:
    wide = replace(SPACE, low=SPACE.low - 50, high=SPACE.high + 50)  # nothing is clipped
    injected = plan(Corrupted(per_client=30, severity=0.01), space=wide)
    noise = (injected.examples.inputs - clean(injected).inputs).ravel()
    spread = 0.01 * float(wide.high.max() - wide.low.min())
    assert stats.kstest(noise, stats.norm(0, spread).cdf).pvalue > 1e-3
    assert stats.kstest(noise, stats.norm(0, 1.1 * spread).cdf).pvalue < 1e-3


def test_blur_is_a_gaussian_that_keeps_the_mean_and_smooths() -> None:
    injected = plan(Corrupted(damage="blur", severity=0.5))
    size, sigma = 8, 1.0
    offsets = np.arange(-4, 5)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for blurred, row in zip(injected.examples.inputs[:3, 0], clean(injected).inputs[:3, 0], strict=True):
        naive = np.zeros((size, size))
        for y, x in product(range(size), repeat=2):
            for (i, a), (j, b) in product(enumerate(offsets), repeat=2):
                naive[y, x] += kernel[i] * kernel[j] * row[min(max(y + a, 0), 7), min(max(x + b, 0), 7)]
        np.testing.assert_allclose(blurred, naive, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(severity=st.floats(0.05, 1), seed=st.integers(0, 20))
def test_occlusion_covers_one_rectangle_of_the_stated_area(severity: float, seed: int) -> None:
    injected = plan(Corrupted(damage="occlusion", severity=severity, per_client=2), seed)
    side = max(1, int(8 * severity**0.5 + 0.5))
    grey = (SPACE.low.min() + SPACE.high.max()) / 2
    for covered, row in zip(injected.examples.inputs[:, 0], clean(injected).inputs[:, 0], strict=True):
        hidden = covered != row
        assert np.all(covered[hidden] == grey)
        ys, xs = np.nonzero(covered == grey)
        assert np.count_nonzero(covered == grey) == side * side
        assert np.ptp(ys) == np.ptp(xs) == side - 1
