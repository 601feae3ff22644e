"""Tests of `fedmem/injections/adversarial.py`."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.data import Space
from fedmem.contracts.reserve import Reserve
from fedmem.injections._softmax import Softmax, fit
from fedmem.injections.adversarial import Adversarial
from fedmem.modalities.tables import Tables
from tests.injections.atypical_helpers import RESERVE, clean, plan


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), epsilon=st.floats(0.01, 1))
def test_no_corner_of_the_box_has_a_smaller_margin(seed: int, epsilon: float) -> None:
    rng = np.random.default_rng(seed)
    model = Softmax(weights=rng.normal(size=(3, 5)), biases=rng.normal(size=3))
    row, own = rng.random((1, 5)).astype(np.float32), np.array([1])
    low, high = np.zeros(5, np.float32), np.ones(5, np.float32)
    where = Space(num_classes=3, num_rows=9, mean=row[0], low=low, high=high, modality=Tables())
    (found,) = Adversarial(epsilon=epsilon)._perturb(row, own, model, where)

    def margin(point: Any) -> float:
        logits = model.weights @ point + model.biases
        return float(logits[1] - np.delete(logits, 1).max())

    corners = [np.clip(row[0] + epsilon * np.array(signs), 0, 1) for signs in product([-1, 1], repeat=5)]
    assert np.abs(found - row[0]).max() <= epsilon + 1e-6
    assert margin(found) == pytest.approx(min(margin(corner) for corner in corners), abs=1e-5)


def test_adversarial_rows_fool_the_reference_more_than_noise() -> None:
    injected = plan(Adversarial(epsilon=0.15, per_client=20))
    public = RESERVE.take(np.arange(200))
    model = fit(public.inputs.reshape(200, -1), public.targets, 4)

    def right(inputs: Any) -> float:
        logits = inputs.reshape(len(inputs), -1) @ model.weights.T + model.biases
        return float((logits.argmax(1) == injected.examples.targets).mean())

    noise = 0.15 * np.random.default_rng(0).choice([-1, 1], size=injected.examples.inputs.shape)
    assert right(clean(injected).inputs) > 0.9
    assert right(clean(injected).inputs + noise) > 0.8
    assert right(injected.examples.inputs) < 0.5


def test_rows_of_the_reference_model_leave_the_reserve() -> None:
    spare = Reserve(RESERVE)
    injected = plan(Adversarial(reference_rows=30), spare=spare)
    assert len(RESERVE) - len(spare) == len(injected.examples) + 30
