"""Tests of `fedmem/attacks/training_mean.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.attacks.training_mean import TrainingMean
from fedmem.modalities.numbers import squared_errors
from tests.attacks.priors_helpers import POPULATION, granted, one
from tests.lab import digits


def test_the_mean_is_that_of_the_population_and_not_of_the_batch() -> None:
    found = one(TrainingMean(), granted(digits().take(np.arange(3))))
    expected = POPULATION.inputs.astype(np.float64).mean(0)
    np.testing.assert_allclose(found.inputs, np.stack([expected] * 3), atol=1e-7)
    assert found.labels.tolist() == [0, 1, 2]
    assert math.isnan(found.distance)
    assert "reads nothing of the update; each input is the mean of reference data" in found.note


def test_training_mean_has_the_smallest_error_of_constants() -> None:
    (mean,) = one(TrainingMean(), granted(digits().take(np.arange(1)))).inputs
    own = squared_errors(mean[None], POPULATION.inputs).mean()
    for other in (np.full_like(mean, 0.5), mean + 0.01, POPULATION.inputs[0]):
        assert own < squared_errors(other[None], POPULATION.inputs).mean()
