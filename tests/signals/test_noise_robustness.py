"""Tests of `fedmem/signals/noise_robustness.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.signals.noise_robustness import NoiseRobustness
from tests.signals.signals_helpers import Bench


def test_linear_model_is_right_as_often_as_its_distance_says() -> None:
    bench = Bench(dataset={"kind": "synthetic", "rows": 400, "test": 100, "classes": 2}, model={"kind": "logistic"})
    params = bench.params(3, scale=0.5)
    found = bench.values(NoiseRobustness(sigmas=(0.5,), draws=400), params)["noise_robustness"][0]
    weight, bias = (params[f"output.{name}"].double().numpy() for name in ("weight", "bias"))
    inputs = bench.examples.inputs.reshape(len(found), -1)
    gap = inputs @ (weight[1] - weight[0]) + bias[1] - bias[0]
    distance = np.where(bench.examples.targets == 1, gap, -gap) / np.linalg.norm(weight[1] - weight[0])
    expected = [0.5 * (1 + math.erf(d / 0.5 / math.sqrt(2))) for d in distance]
    np.testing.assert_allclose(found, expected, atol=0.11)
    assert np.ptp(expected) > 0.3


def test_a_dent_of_the_loss_has_growing_loss_all_around() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    found = bench.values(NoiseRobustness(), params)
    assert (found["loss_growth"] == 0.5).all(), "equal losses count half"
    assert (found["noise_robustness"] == 0.0).all(), "a tie is not right"


def test_noise_is_the_same_for_all_models() -> None:
    bench = Bench()
    params = bench.params()
    twice = bench.values(NoiseRobustness(sigmas=(0.1,), draws=3), params, params)["noise_robustness"]
    assert (twice[0] == twice[1]).all()
