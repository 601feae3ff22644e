"""Tests of `fedmem/estimation/since_use.py`; its values in banks are tested with the estimator `decay`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.estimation.since_use import pair_with_start, starts_of


def test_starts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(2)
    used = rng.random((12, 5)) < 0.3
    for since in range(12):
        expected = np.zeros((12 - since, 5), dtype=bool)
        for start in range(12 - since):
            for j in range(5):
                expected[start, j] = used[start, j] and not used[start + 1 : start + since + 1, j].any()
        np.testing.assert_array_equal(starts_of(used, since), expected)


def test_means_are_over_starts_that_have_both_values() -> None:
    """Uses in rounds 1, 2 and 4; one round later only those of 2 and 4 count, and that of 4 is unknown in run 1."""
    used = np.array([[True], [True], [False], [True], [False]])
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0], [16.0, np.nan]])[..., None]
    found = pair_with_start(values, used, 1)
    np.testing.assert_array_equal(found.now[:, 0], [10.0, 40.0])
    np.testing.assert_array_equal(found.at_start[:, 0], [5.0, 20.0])
    still = pair_with_start(values, used, 1, moves=False)
    np.testing.assert_array_equal(still.now, still.at_start)
    assert still.now[1, 0] == pytest.approx(50.0), "the owner's model needs no value of the aggregate"
    assert np.isnan(pair_with_start(values, used, 3).now).all()
