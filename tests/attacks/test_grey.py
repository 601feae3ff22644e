"""Tests of `fedmem/attacks/grey.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.attacks.grey import Grey
from tests.lab import digits, network, parameters, target_of


def test_grey_ignores_the_gradient_and_has_no_distance() -> None:
    target = target_of(network(), parameters(network()), digits().take(np.arange(3)))
    (found,) = Grey().reconstruct([target], [np.random.default_rng(0)])
    assert found.inputs.shape == (3, 1, 8, 8)
    assert (found.inputs == 0.5).all()
    assert found.labels.tolist() == [0, 1, 2]
    assert math.isnan(found.distance)
