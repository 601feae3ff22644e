"""Tests of `fedmem/signals/influence_function.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.errors import ScenarioError
from fedmem.federation import build as federations
from fedmem.modalities.loss import example_losses
from fedmem.signals._influence_targets import InfluenceTargets
from fedmem.signals._objective import objective_of
from fedmem.signals.influence_function import InfluenceFunction
from fedmem.training.gauss_newton import FlatModel, GaussNewton
from fedmem.training.inverse_products import solve_dense
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

SMALL: dict[str, Any] = {
    "model": {"kind": "logistic"},
    "dataset": {"kind": "synthetic", "rows": 120, "test": 20, "classes": 3, "shape": [4]},
    "injections": [{"kind": "mislabelled", "per_client": 2}, {"kind": "typical", "per_client": 1}],
    "client": {"kind": "sgd", "lr": 0.2, "weight_decay": 0.01, "batch_size": 8},
}


def losses(bench: Bench, vector: Tensor, rows: IntArray | None = None, subject: int = 0) -> Tensor:
    """The losses of rows of the store, or that of an audit example."""
    model = FlatModel(bench.reader._network, bench.params())
    store = bench.federation.store.take(rows) if rows is not None else bench.examples.take(np.array([subject]))
    outputs = model.outputs(vector, torch.from_numpy(store.inputs).double())
    return example_losses(outputs, torch.from_numpy(store.targets))


def flat(params: Params) -> Tensor:
    return torch.cat([value.double().flatten() for value in params.values()])


def unflat(bench: Bench, vector: Tensor) -> Params:
    parts = torch.split(vector, [value.numel() for value in bench.federation.initial.values()])
    pairs = zip(bench.federation.initial.items(), parts, strict=True)
    return {name: part.reshape(value.shape) for (name, value), part in pairs}


def minimum(bench: Bench, rows: IntArray, weights: FloatArray, decay: float) -> Tensor:
    """The minimum of a convex objective by Newton's method."""

    def objective(vector: Tensor) -> Tensor:
        return torch.from_numpy(weights) @ losses(bench, vector, rows) + decay / 2 * vector.square().sum()

    vector = flat(bench.federation.initial)
    for _ in range(12):
        slope = torch.autograd.functional.jacobian(objective, vector)  # type: ignore[no-untyped-call]
        vector = vector - torch.linalg.solve(torch.autograd.functional.hessian(objective, vector), slope)  # type: ignore[no-untyped-call]
    assert float(torch.autograd.functional.jacobian(objective, vector).norm()) < 1e-12  # type: ignore[no-untyped-call]
    return vector


def value(bench: Bench, signal: InfluenceFunction, params: Params, **place: Any) -> FloatArray:
    return np.asarray(signal.values(bench.context(bench.transition(params, **place)))["influence_function"][0])


def test_leaving_an_example_out_of_a_convex_training_agrees() -> None:
    bench = Bench((), **SMALL)
    context = bench.context(bench.transition(bench.params()))
    objective = objective_of(context, 0)
    vector = minimum(bench, objective.rows, objective.weights, objective.decay)
    found = value(bench, InfluenceFunction(damping=0.0), unflat(bench, vector))
    ins = np.flatnonzero(bench.federation.audit.is_in[0])[:6]
    for j in ins.tolist():
        own = bench.federation.trained_rows[bench.federation.audit.subject == j]
        weights = np.where(np.isin(objective.rows, own), 0.0, objective.weights)
        without = minimum(bench, objective.rows, weights, objective.decay)
        rise = float(losses(bench, without, subject=j) - losses(bench, vector, subject=j))
        assert rise > 0
        # a first-order value is too small by the leverage
        assert 0.6 < found[j] / rise < 1.0
        # with a small weight taken away, the ratio of the change to the weight is the value itself
        weights = np.where(np.isin(objective.rows, own), 0.999 * objective.weights, objective.weights)
        less = minimum(bench, objective.rows, weights, objective.decay)
        slope = float(losses(bench, less, subject=j) - losses(bench, vector, subject=j)) / 0.001
        assert found[j] == pytest.approx(slope, rel=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_steps_with_less_weight_of_an_example_agree(momentum: float) -> None:
    """From the minimum of the client's own objective no full step moves, so that the series is exact to first order."""
    bench = Bench((), **{**SMALL, "client": {**SMALL["client"], "momentum": momentum}})
    client = int(bench.federation.audit.owner[np.flatnonzero(bench.federation.audit.is_in[0])[0]])
    context = bench.context(bench.transition(bench.params(), level="local", client=client))
    objective = objective_of(context, 0)
    vector = minimum(bench, objective.rows, objective.weights, objective.decay)
    found = value(bench, InfluenceFunction(), unflat(bench, vector), level="local", client=client)
    holds = bench.federation.audit.holds([client])[0]
    assert (np.isnan(found) == ~holds).all()
    steps = bench.scenario.client.num_steps(len(objective.rows))
    assert steps > 1
    for j in np.flatnonzero(holds & bench.federation.audit.is_in[0]).tolist():
        own = bench.federation.trained_rows[bench.federation.audit.subject == j]

        def loss_after(share: float, own: IntArray = own, j: int = j) -> float:
            weights = torch.from_numpy(np.where(np.isin(objective.rows, own), share, 1.0) * objective.weights)
            moved, velocity = vector.clone().requires_grad_(), torch.zeros_like(vector)
            for _ in range(steps):
                mean = weights @ losses(bench, moved, objective.rows) + 0.005 * moved.square().sum()
                velocity = momentum * velocity + torch.autograd.grad(mean, moved)[0]
                moved = (moved - 0.2 * velocity).detach().requires_grad_()
            return float(losses(bench, moved.detach(), subject=j))

        assert found[j] == pytest.approx((loss_after(0.9999) - loss_after(1.0)) / 1e-4, rel=1e-3)


def test_influence_on_others_is_the_slope_in_their_weight() -> None:
    bench = Bench((), **SMALL)
    objective = objective_of(bench.context(bench.transition(bench.params())), 0)
    vector = minimum(bench, objective.rows, objective.weights, objective.decay)
    signal = InfluenceFunction(damping=0.0, targets=8)
    targets = InfluenceTargets.draw(bench.federation, 8)
    examples = targets.examples(bench.federation)
    model = FlatModel(bench.reader._network, bench.params())
    context = bench.context(bench.transition(unflat(bench, vector)))
    found = signal.values(context)["influence_function_on"][0]

    def losses_on(vector: Tensor) -> FloatArray:
        outputs = model.outputs(vector, torch.from_numpy(examples.inputs).double())
        return np.asarray(example_losses(outputs, torch.from_numpy(examples.targets)))

    for j in np.flatnonzero(bench.federation.audit.is_in[0])[:4].tolist():
        own = bench.federation.trained_rows[bench.federation.audit.subject == j]
        weights = np.where(np.isin(objective.rows, own), 0.999 * objective.weights, objective.weights)
        less = minimum(bench, objective.rows, weights, objective.decay)
        # positive where the loss rises as the example leaves
        slopes = (losses_on(less) - losses_on(vector)) / 0.001
        np.testing.assert_allclose(found[j], slopes, rtol=0.01, atol=1e-5)
        assert not np.allclose(-found[j], slopes, rtol=0.1)
        assert not np.allclose(found[j] / objective.of_examples[j], slopes, rtol=0.1)
    between = (found / objective.of_examples[:, None])[targets.audit, : len(targets.audit)]
    np.testing.assert_allclose(between, between.T, rtol=1e-9)
    assert (between < 0).any()


def test_leaving_a_row_out_of_ridge_divides_by_its_leverage() -> None:
    """With squared loss and w = 1/n, the change of any prediction is the first-order one divided by 1 − h."""
    rng = np.random.default_rng(0)
    rows, targets = torch.from_numpy(rng.standard_normal((9, 3))), torch.from_numpy(rng.standard_normal((9, 1)))
    layer = nn.Linear(3, 1, bias=False).double()

    def ridge(kept: list[int]) -> Tensor:
        some, goal = rows[kept], targets[kept]
        solved: Tensor = torch.linalg.solve(some.T @ some / 9 + 0.1 * torch.eye(3).double(), some.T @ goal / 9)
        return solved

    head = ridge(list(range(9)))
    model = FlatModel(layer, {"weight": head.T})
    matrix = GaussNewton(
        model, rows, np.full(9, 1 / 9), decay=0.1, factor=lambda out: torch.ones(len(out), 1, 1).double()
    )
    slopes = (rows @ head - targets) * rows
    moved = solve_dense(matrix.dense(), 0.0, slopes) / 9
    for j in range(9):
        leverage = float(rows[j] @ solve_dense(matrix.dense(), 0.0, rows[j : j + 1])[0]) / 9
        exact = rows @ (ridge([i for i in range(9) if i != j]) - head)
        np.testing.assert_allclose(exact[:, 0] * (1 - leverage), rows @ moved[j], rtol=1e-10)


def test_solvers_agree_and_damping_is_relative() -> None:
    bench = Bench((), **{**SMALL, "model": {"kind": "mlp", "hidden": [5]}})
    params = bench.params(scale=0.5)
    dense = value(bench, InfluenceFunction(), params)
    assert (dense > 0).all()
    np.testing.assert_allclose(value(bench, InfluenceFunction(solver="cg"), params), dense, rtol=1e-8)
    strong = value(bench, InfluenceFunction(damping=10.0), params)
    many = value(bench, InfluenceFunction(solver="lissa", damping=10.0, depth=400), params)
    np.testing.assert_allclose(many, strong, rtol=1e-6)
    few = value(bench, InfluenceFunction(solver="lissa", damping=10.0, depth=3), params)
    assert (few < strong).all()
    assert (strong < dense).all()
    # with much damping the matrix does not matter: w ‖∇ℓ‖² / λ
    context = bench.context(bench.transition(params))
    squares = np.sum(list(context.squared_gradients().values()), axis=0)[0]
    weight = objective_of(context, 0).of_examples
    huge = [value(bench, InfluenceFunction(damping=damping), params) for damping in (1e9, 2e9)]
    np.testing.assert_allclose(huge[0], 2 * huge[1], rtol=1e-6)
    np.testing.assert_allclose(huge[0] / huge[0][0], weight * squares / (weight * squares)[0], rtol=1e-6)


def test_kronecker_factors_rank_as_the_matrix_does() -> None:
    bench = Bench((), **{**SMALL, "model": {"kind": "mlp", "hidden": [5]}})
    params = bench.params(scale=0.5)
    dense, found = (value(bench, InfluenceFunction(solver=kind), params) for kind in ("dense", "ekfac"))
    assert (found > 0).all()
    assert not np.allclose(found, dense, rtol=1e-2)
    assert spearmanr(found, dense).statistic > 0.8
    # with much damping no matrix matters
    strong = [value(bench, InfluenceFunction(solver=kind, damping=1e6), params) for kind in ("dense", "ekfac")]
    np.testing.assert_allclose(strong[1], strong[0], rtol=1e-4)
    assert InfluenceFunction(solver="ekfac").max_parameters == 0


def test_weights_are_those_of_the_aggregate_and_count_copies() -> None:
    injections = [{"kind": "random_pattern", "per_client": 1, "copies": 3}, {"kind": "typical", "per_client": 1}]
    bench = Bench(injections=injections, partition={"kind": "dirichlet", "alpha": 0.3})
    federation, context = bench.federation, bench.context(bench.transition(bench.params()))
    by_size = objective_of(context, 0)
    sizes = np.array([len(federation.rows(0, client, 2)) for client in range(5)])
    assert by_size.weights == pytest.approx(np.full(sizes.sum(), 1 / sizes.sum()))
    copies = np.where(federation.audit.kind == "random_pattern", 3, 1)
    assert by_size.of_examples == pytest.approx(copies / sizes.sum())
    context.weighting = "uniform"
    uniform = objective_of(context, 0)
    assert uniform.weights == pytest.approx(np.repeat(1 / 5 / sizes, sizes))
    assert uniform.of_examples == pytest.approx(copies / 5 / sizes[federation.audit.owner])
    local = objective_of(bench.context(bench.transition(bench.params(), level="local", client=2)), 0)
    assert local.weights == pytest.approx(np.full(sizes[2], 1 / sizes[2]))
    assert local.of_examples == pytest.approx(np.where(federation.audit.owner == 2, copies / sizes[2], 0.0))


def test_diverged_models_are_undefined() -> None:
    bench = Bench()
    params = bench.params()
    params["output.bias"][0] = math.nan
    assert np.isnan(value(bench, InfluenceFunction(), params)).all()


def test_large_networks_and_unknown_rates_are_refused() -> None:
    signals = [{"kind": "influence_function"}]
    large = tiny(model={"kind": "mlp", "hidden": [900]}, signals=signals)
    with pytest.raises(ScenarioError, match=r"of at most 6,000 × 6,000 parameters, but mlp has .*; write solver: cg"):
        federations.build(large)
    federations.build(tiny(model={"kind": "mlp", "hidden": [900]}, signals=[{**signals[0], "solver": "cg"}]))
    with pytest.raises(ScenarioError, match="with client fedper each client has layers of its own"):
        tiny(client={"kind": "fedper"}, signals=signals)
    with pytest.raises(ScenarioError, match="fewer copies than the objective counts; leave deduplicate out"):
        tiny(client={"kind": "sgd", "deduplicate": "exact"}, signals=signals)
