"""Tests of `fedmem/signals/el2n.py`."""

from __future__ import annotations

import math

import numpy as np

from fedmem.signals.el2n import El2n
from tests.signals.signals_helpers import Bench


def test_is_the_distance_of_probabilities_from_the_label() -> None:
    bench = Bench()
    params = bench.params()
    found = bench.values(El2n(), params)["el2n"][0]
    np.testing.assert_allclose(found, np.linalg.norm(bench.probabilities(params) - bench.one_hot(), axis=1), atol=1e-12)


def test_uniform_and_sure_predictions() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    classes = bench.federation.num_classes
    np.testing.assert_allclose(bench.values(El2n(), params)["el2n"], math.sqrt(1 - 1 / classes), rtol=1e-12)
    label = int(bench.examples.targets[0])
    params["output.bias"][label] = 200.0
    found = bench.values(El2n(), params)["el2n"][0]
    assert 0 < found[0] < 1e-60, "no cancellation where p is 1 to rounding"
    np.testing.assert_allclose(found[bench.examples.targets != label], math.sqrt(2), rtol=1e-12)


def test_a_diverged_model_has_no_value() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    params["output.bias"][:] = math.nan
    assert np.isnan(bench.values(El2n(), params)["el2n"]).all()
