"""Tests of `fedmem/signals/loss_sensitivity.py`."""

from __future__ import annotations

import numpy as np

from fedmem.signals.loss_sensitivity import LossSensitivity
from tests.signals.signals_helpers import Bench


def test_closed_form_of_logistic_regression() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    found = bench.values(LossSensitivity(), params)["loss_sensitivity"][0]
    slopes = (bench.probabilities(params) - bench.one_hot()) @ params["output.weight"].numpy()
    np.testing.assert_allclose(found, np.abs(slopes).sum(axis=1), rtol=1e-5)


def test_is_none_where_the_model_ignores_its_input() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    params["output.weight"][:] = 0.0
    assert (bench.values(LossSensitivity(), params)["loss_sensitivity"] == 0.0).all()
