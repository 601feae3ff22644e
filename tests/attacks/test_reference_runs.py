"""Tests of `fedmem/attacks/_reference_runs.py`."""

from __future__ import annotations

import numpy as np

from fedmem.attacks._reference_runs import minus_other_outs
from tests.banks import coins


def test_differences_equal_a_loop_over_other_out_runs() -> None:
    rng = np.random.default_rng(0)
    values, is_in = rng.normal(size=(8, 5)), coins(8, 5, rng)
    values[rng.random(values.shape) < 0.2] = np.nan
    found = minus_other_outs(values)(is_in)
    for r in range(8):
        for j in range(5):
            others = [values[k, j] for k in range(8) if k != r and not is_in[k, j] and not np.isnan(values[k, j])]
            np.testing.assert_allclose(found[r, j], values[r, j] - np.mean(others) if others else np.nan)


def test_without_another_out_run_nothing_is_known() -> None:
    found = minus_other_outs(np.arange(4.0)[:, None])(np.array([[True], [True], [False], [True]]))
    assert np.isnan(found).ravel().tolist() == [False, False, True, False]
