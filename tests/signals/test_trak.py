"""Tests of `fedmem/signals/trak.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fedmem.contracts.arrays import FloatArray
from fedmem.errors import ScenarioError
from fedmem.federation import build as federations
from fedmem.signals._influence_targets import InfluenceTargets
from fedmem.signals._objective import objective_of
from fedmem.signals.trak import Trak
from fedmem.training.gauss_newton import FlatModel
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny


def gradients(bench: Bench, inputs: FloatArray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, P) gradients of margins by finite differences, and (n,) 1 − p."""
    model = FlatModel(bench.reader._network, bench.params(scale=0.3))
    x = torch.from_numpy(inputs).double()

    def margins(vector: torch.Tensor) -> np.ndarray:
        p = model.outputs(vector, x).softmax(dim=1).detach().numpy()[np.arange(len(targets)), targets]
        return np.asarray(np.log(p / (1 - p)))

    axes = 1e-5 * torch.eye(len(model.vector)).double()
    slopes = [(margins(model.vector + axis) - margins(model.vector - axis)) / 2e-5 for axis in axes]
    return np.stack(slopes, axis=1), 1 / (1 + np.exp(margins(model.vector)))


@pytest.mark.parametrize("level", ["global", "local"])
def test_values_are_the_formula_with_an_inverse(level: str) -> None:
    bench = Bench((), model={"kind": "logistic"})
    client = int(bench.federation.audit.owner[0])
    place: dict[str, Any] = {"level": "local", "client": client} if level == "local" else {}
    context = bench.context(bench.transition(bench.params(scale=0.3), **place))
    values = Trak(damping=0.05, targets=6).values(context)
    found, on_targets = values["trak"][0], values["trak_on"][0]
    objective = objective_of(context, 0)
    store = bench.federation.store.take(objective.rows)
    rows, _ = gradients(bench, store.inputs, store.targets)
    own, doubts = gradients(bench, bench.examples.inputs, bench.examples.targets)
    matrix = rows.T @ (objective.weights[:, None] * rows)
    damped = matrix + 0.05 * np.diag(matrix).mean() * np.eye(len(matrix))
    expected = objective.of_examples * doubts * np.einsum("jp,jp->j", own, np.linalg.solve(damped, own.T).T)
    holds = bench.federation.audit.holds([client])[0] if level == "local" else np.ones(len(own), dtype=bool)
    np.testing.assert_allclose(found[holds], expected[holds], rtol=1e-5)
    assert np.isnan(found[~holds]).all()
    assert (found[holds] > 0).all()
    others = InfluenceTargets.draw(bench.federation, 6).examples(bench.federation)
    slopes, _ = gradients(bench, others.inputs, others.targets)
    cross = (objective.of_examples * doubts)[:, None] * np.linalg.solve(damped, own.T).T @ slopes.T
    np.testing.assert_allclose(on_targets[holds], cross[holds], rtol=1e-4, atol=1e-4 * np.abs(cross).max())


def test_projections_rank_as_the_gradients_do() -> None:
    bench = Bench()
    params = bench.params(scale=0.3)
    plain = bench.values(Trak(), params)["trak"][0]
    projected = bench.values(Trak(dimension=400), params)["trak"][0]
    assert spearmanr(plain, projected).statistic > 0.9
    np.testing.assert_array_equal(bench.values(Trak(dimension=400), params)["trak"][0], projected)
    assert not np.allclose(plain, projected)


def test_diverged_and_singular_are_undefined() -> None:
    bench = Bench()
    assert np.isnan(bench.values(Trak(damping=0.0), bench.params())["trak"]).all(), "more parameters than rows"
    params = bench.params()
    params["output.bias"][0] = math.nan
    assert np.isnan(bench.values(Trak(), params)["trak"]).all()


def test_large_networks_need_a_projection() -> None:
    large = {"kind": "mlp", "hidden": [900]}
    with pytest.raises(ScenarioError, match=r"trak forms .* 6,000 parameters.*; write dimension: 512, or choose"):
        federations.build(tiny(model=large, signals=[{"kind": "trak"}]))
    federations.build(tiny(model=large, signals=[{"kind": "trak", "dimension": 64}]))
