"""Tests of `fedmem/signals/weight_features.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.observation.signals import _SignalContext
from fedmem.signals.weight_features import WeightFeatures
from tests.signals.signals_helpers import Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def read(bench: Bench, *models: Any, projections: int = 1024) -> FloatArray:
    """(T, q) the features of models, each at a run, a round and a client of its own."""
    steps = [
        bench.transition(model, sent=model, level="local", client=i, run=i, round_number=1 + i, num_examples=1)
        for i, model in enumerate(models)
    ]
    context = _SignalContext(
        steps, bench.scenario, bench.federation, bench._executor, bench.reader._network, lambda: None,  # type: ignore[arg-type,return-value]
        bench.federation.test.take(np.arange(1)),
    )  # fmt: skip
    return WeightFeatures(projections=projections).values(context)["weight_feature"][:, 0]


def test_distances_are_kept_and_the_place_does_not_count(bench: Bench) -> None:
    one, other = bench.params(1), bench.params(2)
    first, second, again = read(bench, one, other, one)
    assert np.array_equal(first, again)
    distance = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    assert np.square(first - second).sum() == pytest.approx(distance, rel=0.2)


def test_a_model_that_is_not_finite_is_missing(bench: Bench) -> None:
    broken = {name: value * np.nan for name, value in bench.params(1).items()}
    values = read(bench, broken, bench.params(1), projections=4)
    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1]).all()
    assert len(WeightFeatures(projections=4).variant_names(bench.federation)["weight_feature"]) == 4
