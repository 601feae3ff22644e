"""Tests of `fedmem/probes/_stationarity.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.probes._stationarity import Objective


def logistic(rows: int = 12, weight_decay: float = 0.05) -> tuple[Objective, Params]:
    """Multinomial logistic regression on random rows, and its optimum in float64, by L-BFGS."""
    rng = np.random.default_rng(0)
    inputs, targets = rng.random((rows, 5)), rng.integers(3, size=rows)
    objective = Objective(nn.Linear(5, 3), inputs, targets, np.full(rows, 1 / rows), weight_decay)
    leaves = [torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    optimiser = torch.optim.LBFGS(leaves, max_iter=400, tolerance_grad=1e-13, tolerance_change=1e-16, history_size=20)

    def step() -> Any:
        slopes = objective.gradient({"weight": leaves[0], "bias": leaves[1]})
        leaves[0].grad, leaves[1].grad = slopes["weight"], slopes["bias"]
        logits = torch.from_numpy(inputs) @ leaves[0].T + leaves[1]
        decay = weight_decay / 2 * sum(value.square().sum() for value in leaves)
        return nn.functional.cross_entropy(logits, torch.from_numpy(targets)) + decay

    for _ in range(3):
        optimiser.step(step)  # type: ignore[no-untyped-call]
    return objective, {"weight": leaves[0], "bias": leaves[1]}


def quotient(gradient: Params) -> FloatArray:
    """x = g_W / g_b, of the class with the largest g_b."""
    unit = int(gradient["bias"].abs().argmax())
    return np.asarray((gradient["weight"][unit] / gradient["bias"][unit]).numpy())


def every_row_is_exact(objective: Objective, params: Params) -> None:
    for place in range(len(objective.targets)):
        is_place = np.arange(len(objective.targets)) == place
        gradient = objective.missing_gradient(params, is_place)
        np.testing.assert_allclose(quotient(gradient), objective.inputs[place], atol=1e-6)
        assert int(gradient["bias"].argmin()) == objective.targets[place], "its label has the only negative slope"
        assert objective.residual(params, is_place) < 1e-6


def test_every_row_is_exact_at_the_optimum() -> None:
    every_row_is_exact(*logistic())


def test_rows_that_are_at_several_places_are_exact_too() -> None:
    objective, _ = logistic()
    twice = replace(objective, inputs=objective.inputs[[0, *range(12)]], targets=objective.targets[[0, *range(12)]],
                    weights=np.array([0.5, 0.5, *([1.0] * 11)]) / 12)  # fmt: skip
    _, params = logistic()
    is_place = np.arange(13) < 2
    np.testing.assert_allclose(quotient(twice.missing_gradient(params, is_place)), twice.inputs[0], atol=1e-6)


@pytest.mark.parametrize("broken", ["sign of weight decay", "no weight decay", "weight of a row"])
def test_exactness_notices_what_is_broken(broken: str) -> None:
    objective, params = logistic()
    changed = {
        "sign of weight decay": replace(objective, weight_decay=-0.05),
        "no weight decay": replace(objective, weight_decay=0.0),
        "weight of a row": replace(objective, weights=objective.weights * np.linspace(1, 2, 12)),
    }[broken]
    with pytest.raises(AssertionError):
        every_row_is_exact(changed, params)


def test_what_is_at_the_place_is_not_read() -> None:
    objective, params = logistic()
    is_place = np.arange(12) == 4
    inputs = objective.inputs.copy()
    inputs[4] = np.nan
    hidden = replace(objective, inputs=inputs, targets=np.where(is_place, 0, objective.targets))
    for name, value in objective.missing_gradient(params, is_place).items():
        torch.testing.assert_close(hidden.missing_gradient(params, is_place)[name], value, rtol=0, atol=0)


def test_error_elsewhere_is_the_gradient_of_the_objective() -> None:
    objective, params = logistic()
    moved = {name: value + 0.3 for name, value in params.items()}
    moved["bias"] = moved["bias"] + torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    is_place = np.arange(12) == 2
    own = replace(objective.without(~is_place), weights=np.ones(1), weight_decay=0.0).gradient(moved)
    whole = objective.gradient(moved)
    for name, value in objective.missing_gradient(moved, is_place).items():
        torch.testing.assert_close(value, own[name] - 12 * whole[name])
    length = sum(float(whole[name].square().sum()) for name in whole) ** 0.5
    expected = 12 * length / sum(float(own[name].square().sum()) for name in own) ** 0.5
    assert objective.residual(moved, is_place) == pytest.approx(expected)
    assert expected > 0.5


def test_a_row_without_a_gradient_has_no_residual() -> None:
    objective, params = logistic()
    is_place = np.arange(12) == 1
    silent = replace(objective, weights=np.where(is_place, 0.0, objective.weights))
    assert np.isnan(silent.residual(params, is_place))
    diverged = {name: torch.full_like(value, torch.inf) for name, value in params.items()}
    assert np.isnan(objective.residual(diverged, is_place))
