"""Tests of `fedmem/signals/input_curvature.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.contracts.arrays import FloatArray
from fedmem.signals.input_curvature import InputCurvature, random_signs
from tests.signals.signals_helpers import Bench


def hessians(bench: Bench, params: dict[str, torch.Tensor]) -> FloatArray:
    """Wᵀ (diag p − p pᵀ) W of each example."""
    p, w = bench.probabilities(params), params["output.weight"].double().numpy()
    return np.stack([w.T @ (np.diag(row) - np.outer(row, row)) @ w for row in p])


def test_closed_form_of_logistic_regression() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    found = bench.values(InputCurvature(directions=6), params)
    signs = np.stack([v.flatten().numpy() for v in random_signs(bench.context(bench.transition(params)), 6)])
    expected = np.square(np.einsum("nde,ke->nkd", hessians(bench, params), signs)).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(found["curvature_exact"][0], expected, rtol=1e-5)
    np.testing.assert_allclose(found["curvature"][0], expected, rtol=0.05)


def test_mean_over_many_directions_is_the_trace() -> None:
    bench = Bench(model={"kind": "logistic"}, injections=[{"kind": "typical", "per_client": 1}])
    params = bench.params()
    traces = np.square(hessians(bench, params)).sum(axis=(1, 2))
    few, many = (bench.values(InputCurvature(directions=n), params)["curvature_exact"][0] for n in (1, 400))
    np.testing.assert_allclose(many, traces, rtol=0.2)
    assert few.mean() == pytest.approx(traces.mean(), rel=0.8), "the number of directions is no factor"


def test_vanishes_where_the_label_is_sure() -> None:
    bench = Bench(model={"kind": "logistic"})
    params = bench.params()
    params["output.bias"][:] = 0.0
    params["output.bias"][int(bench.examples.targets[0])] = 500.0
    found = bench.values(InputCurvature(directions=2), params)
    assert found["curvature_exact"][0, 0] < 1e-100


def test_only_owners_are_asked_unless_others_are() -> None:
    bench = Bench()
    audit = bench.federation.audit
    holder = int(audit.owner[0])
    local = bench.context(bench.transition(bench.params(), level="local", client=holder))
    own = InputCurvature(directions=1).values(local)["curvature"][0]
    assert (np.isfinite(own) == (audit.owner == holder)).all()
    assert np.isfinite(InputCurvature(directions=1, others=True).values(local)["curvature"]).all()
