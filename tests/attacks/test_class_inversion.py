"""Class representatives from parameters alone: a closed form, real digits, and what it must not look at."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks.class_inversion import ClassInversion
from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import Reconstruction
from tests.lab import digits, gradient_of, network, parameters, target_of


def inverted(model: nn.Module, params: Params, seed: int = 0, **fields: Any) -> Reconstruction:
    target = target_of(model, params, digits().take(np.arange(3)))
    (found,) = ClassInversion(**fields).reconstruct([target], [np.random.default_rng(seed)])
    return found


def trained(epochs: int) -> Params:
    params, data, rng = parameters(network()), digits(), np.random.default_rng(9)
    for _ in range(epochs):
        for rows in np.array_split(rng.permutation(1400), 140):
            slopes = gradient_of(network(), params, data.inputs[rows], data.targets[rows])
            params = {name: value - 0.1 * slopes[name] for name, value in params.items()}
    return params


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_representative_of_linear_two_class_model_is_a_corner(sign: float) -> None:
    """Oracle: p(1 | x) rises in x_j where w_1j > w_0j and falls elsewhere, so the best x is 1 there and 0 elsewhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    params = {name: sign * value for name, value in parameters(model).items()}
    target = replace(target_of(network(), parameters(network()), digits().take(np.arange(1))), num_classes=2)
    target = replace(target, model=model, params=params)
    (found,) = ClassInversion(tv=0.0).reconstruct([target], [np.random.default_rng(0)])
    weight = params["1.weight"]
    corner = (weight[1] > weight[0]).float().numpy().reshape(1, 8, 8)
    assert found.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.inputs, np.stack([1 - corner, corner]))


def test_representatives_of_trained_model_match_class_means() -> None:
    data = digits()
    means = np.stack([data.inputs[data.targets == label].mean(0) for label in range(10)]).reshape(10, -1)

    def right(params: Params) -> int:
        found = inverted(network(), params)
        likeness = np.corrcoef(found.inputs.reshape(10, -1), means)[:10, 10:]
        return int((likeness.argmax(1) == np.arange(10)).sum())

    params = trained(3)
    assert right(params) >= 9
    assert right(parameters(network())) <= 4, "an untrained model knows no digits"
    outwards = {name: -value if name.startswith("3.") else value for name, value in params.items()}
    assert right(outwards) <= 2, "away from a class is not towards it"


def test_class_inversion_ignores_the_gradient_and_is_seeded() -> None:
    model = network()
    target = target_of(model, parameters(model), digits().take(np.arange(3)))
    blank = replace(target, gradient={name: torch.full_like(g, math.nan) for name, g in target.gradient.items()})
    one, same, other = (
        ClassInversion(steps=5).reconstruct([t], [np.random.default_rng(seed)])[0]
        for t, seed in ((target, 0), (blank, 0), (target, 1))
    )
    np.testing.assert_array_equal(one.inputs, same.inputs)
    assert one.distance == same.distance
    assert not np.array_equal(one.inputs, other.inputs)


def test_class_inversion_inverts_the_model_after_the_update() -> None:
    model, before, after = network(), parameters(network()), trained(1)
    target = target_of(model, before, digits().take(np.arange(3)))
    update = {name: after[name].double() - value.double() for name, value in before.items()}
    (found,) = ClassInversion(steps=20).reconstruct([replace(target, update=update)], [np.random.default_rng(0)])
    np.testing.assert_array_equal(found.inputs, inverted(model, after, steps=20).inputs)
    assert not np.array_equal(found.inputs, inverted(model, before, steps=20).inputs)


def test_a_model_that_is_not_finite_gives_finite_inputs() -> None:
    broken = {name: torch.full_like(value, math.nan) for name, value in parameters(network()).items()}
    found = inverted(network(), broken, steps=3)
    assert np.isfinite(found.inputs).all()
    assert math.isnan(found.distance)
