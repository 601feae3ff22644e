"""Tests of `fedmem/signals/unit_ablation.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.signal import stored_names
from fedmem.errors import ScenarioError
from fedmem.modalities.loss import example_losses
from fedmem.signals._ablation import ablate, unit_layers
from fedmem.signals.unit_ablation import UnitAblation
from tests.signals.signals_helpers import Bench
from tests.tiny import tiny

CANARY, UNIT = 3, 5


def bench(**changes: Any) -> Bench:
    return Bench(**{"model": {"kind": "mlp", "hidden": [8]}, **changes})


def flat(inputs: FloatArray) -> FloatArray:
    return np.asarray(inputs.reshape(len(inputs), -1), dtype=np.float64)


def planted(lab: Bench, seed: int = 0) -> Params:
    """A network that is right about the canary because of one unit alone, which fires for it alone.

    It gives all other inputs the class 0.
    """
    x = flat(lab.examples.inputs)
    others = np.concatenate([np.delete(x, CANARY, axis=0), flat(lab.federation.population.inputs)])
    direction = x[CANARY] - others.mean(0)
    scores = others @ direction
    own = x[CANARY] @ direction
    assert own > scores.max()
    middle = (own + scores.max()) / 2
    params = {name: torch.zeros_like(value) for name, value in lab.federation.initial.items()}
    params["hidden1.weight"][UNIT] = torch.from_numpy(direction / (own - middle)).float()
    params["hidden1.bias"][UNIT] = -middle / (own - middle)
    params["output.bias"][0] = 2.0
    params["output.weight"][int(lab.examples.targets[CANARY]), UNIT] = 9.0
    return params


def lab_with_canary() -> Bench:
    lab = bench()
    lab.examples.targets[CANARY] = 2
    return lab


def test_one_planted_unit_is_found_and_others_are_left() -> None:
    lab = lab_with_canary()
    found = UnitAblation(units=3).values(lab.context(lab.transition(planted(lab))))
    assert found["units_to_flip"][0, CANARY] == 1
    assert found["ablated_unit"][0, CANARY, 0] == UNIT
    margin = found["ablated_margin"][0, CANARY]
    assert margin[0] > 5.0 > 0.0 > margin[1]
    assert found["units_censored"][0, CANARY] == 0
    others = np.delete(np.arange(len(lab.examples)), CANARY)
    assert (found["ablated_unit"][0, others] != UNIT).all(), "the unit says nothing about other examples"


def test_it_ends_where_no_unit_is_in_favour() -> None:
    lab = lab_with_canary()
    found = UnitAblation(units=3).values(lab.context(lab.transition(planted(lab))))
    assert np.isnan(found["ablated_unit"][0, CANARY, 1:]).all()
    np.testing.assert_array_equal(found["ablated_margin"][0, CANARY, 1:], found["ablated_margin"][0, CANARY, 1])


def test_wrong_answers_count_0_and_right_ones_are_censored() -> None:
    lab = lab_with_canary()
    params = {name: torch.zeros_like(value) for name, value in lab.federation.initial.items()}
    params["output.bias"][0] = 5.0
    found = UnitAblation(units=2).values(lab.context(lab.transition(params)))
    is_zero = lab.examples.targets == 0
    assert is_zero.any()
    assert (found["units_to_flip"][0] == np.where(is_zero, 3, 0)).all()
    assert (found["units_censored"][0] == is_zero).all()
    assert (found["ablation_fall"] == 0).all()


def test_scores_are_those_of_incoming_weights_and_biases() -> None:
    """Σ w ∂J/∂w over the weights and the bias of a unit, by a loop of autograd."""
    lab = bench()
    params, row = lab.params(4), 7
    context = lab.context(lab.transition(params))
    reference = lab.federation.population
    layers = unit_layers(context.network, lab.federation)
    assert layers == [("activation1", 8, 1)]
    leaves = {name: value.double().clone().requires_grad_() for name, value in params.items()}
    one = lab.examples.take(np.array([row]))
    losses = [
        example_losses(
            functional_call(context.network, leaves, (torch.from_numpy(rows.inputs).double(),)),
            torch.from_numpy(rows.targets),
        ).mean()
        for rows in (one, reference)
    ]
    slopes = dict(zip(leaves, torch.autograd.grad(losses[1] - losses[0], list(leaves.values())), strict=True))
    parts = leaves["hidden1.weight"] * slopes["hidden1.weight"], leaves["hidden1.bias"] * slopes["hidden1.bias"]
    scores = (parts[0].sum(dim=1) + parts[1]).detach().numpy()
    assert scores.max() > 0
    margin, _, units = ablate(context, context.function(0), one, reference, 1)
    assert units[0, 0] == scores.argmax()
    without = {name: value.clone() for name, value in params.items()}
    without["hidden1.weight"][int(units[0, 0])] = 0.0
    without["hidden1.bias"][int(units[0, 0])] = 0.0
    context = lab.context(lab.transition(without))
    zeroed = ablate(context, context.function(0), one, reference, 1)[0]
    np.testing.assert_allclose(margin[0, 1], zeroed[0, 0], rtol=1e-9)


def test_noise_costs_passes_for_each_draw() -> None:
    lab = bench()
    plain, noisy = (UnitAblation(units=2, noise=sigma, noise_draws=4).passes_in(lab.federation) for sigma in (0.0, 0.1))
    assert noisy[0] / plain[0] == pytest.approx((1 + 3 * 4) / 3)


def test_a_model_that_has_diverged_has_no_value() -> None:
    lab = bench()
    params = lab.params(1)
    params["output.bias"][0] = math.nan
    found = UnitAblation(units=2).values(lab.context(lab.transition(params)))
    assert all(np.isnan(values).all() for values in found.values())


def test_the_cap_is_a_share_of_all_units_or_a_number() -> None:
    federation = bench(model={"kind": "mlp", "hidden": [8, 12]}).federation
    for signal, cap in ((UnitAblation(), 4), (UnitAblation(units=2), 2), (UnitAblation(units=99), 19)):
        names = stored_names(signal, federation)
        assert f"ablated_margin.{cap}" in names
        assert f"ablated_margin.{cap + 1}" not in names


def test_it_needs_a_population_and_a_hidden_block() -> None:
    with pytest.raises(ScenarioError, match="population"):
        tiny(signals=[{"kind": "unit_ablation"}], population=0)
