"""Tests of `fedmem/injections/out_of_distribution.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from fedmem.injections.out_of_distribution import OutOfDistribution
from tests.injections.atypical_helpers import SPACE, clean, plan


def test_negatives_are_upside_down_about_the_middle() -> None:
    injected = plan(OutOfDistribution(source="negatives"))
    total = injected.examples.inputs.astype(np.float64) + clean(injected).inputs
    np.testing.assert_allclose(total, SPACE.low.min() + SPACE.high.max(), atol=1e-6)


def test_gratings_are_sine_waves_with_any_label() -> None:
    where = replace(SPACE, mean=np.zeros((2, 16, 16), np.float32), low=np.array(0.0), high=np.array(1.0))
    injected = plan(OutOfDistribution(per_client=200), space=where)
    inputs = injected.examples.inputs
    assert inputs.shape == (600, 2, 16, 16)
    np.testing.assert_array_equal(inputs[:, 0], inputs[:, 1])
    assert (injected.examples.ids < 0).all()
    assert stats.chisquare(np.bincount(injected.examples.targets, minlength=4)).pvalue > 1e-3
    # On a line a sampled sine satisfies x[i-1] + x[i+1] = 2 cos(step) x[i].
    wave = 2 * inputs[:, 0].astype(np.float64) - 1
    for line in wave[:20, 3]:
        middle, sums = line[1:-1], line[:-2] + line[2:]
        np.testing.assert_allclose(sums, middle * (middle @ sums) / (middle @ middle), atol=1e-4)
