"""Tests of `fedmem/signals/grad_norm.py`."""

from __future__ import annotations

import numpy as np

from fedmem.signals.grad_norm import GradNorm
from tests.signals.signals_helpers import Bench, gradient_norms


def test_closed_form_of_logistic_regression() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    found = bench.values(GradNorm(), params)["grad_norm"][0]
    error = np.linalg.norm(bench.probabilities(params) - bench.one_hot(), axis=1)
    length = np.sqrt(np.square(bench.examples.inputs.reshape(len(error), -1)).sum(axis=1) + 1)
    np.testing.assert_allclose(found, error * length, rtol=1e-5)
    assert not np.allclose(found, error), "the normaliser of the input matters"


def test_equals_a_loop_of_autograd_with_hidden_layers() -> None:
    bench = Bench()
    models = [bench.params(seed) for seed in range(3)]
    found = bench.values(GradNorm(), *models)["grad_norm"]
    np.testing.assert_allclose(found, [gradient_norms(bench, params) for params in models], rtol=1e-10)


def test_is_zero_where_the_label_is_sure() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params(scale=0.0)
    label = int(bench.examples.targets[0])
    params["output.bias"][label] = 1000.0
    found = bench.values(GradNorm(), params)["grad_norm"][0]
    assert found[0] == 0.0
    assert (found[bench.examples.targets != label] > 1).all()
