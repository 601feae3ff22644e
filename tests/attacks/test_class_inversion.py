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
from fedmem.errors import ComponentError
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


def granted(**fields: Any) -> Reconstruction:
    """An attack that is granted what it declares of a target with forty images of the adversary's own."""
    attack = ClassInversion(**fields)
    target = replace(target_of(network(), trained(1), digits().take(np.arange(3))), population=digits().take(OWN))
    (found,) = attack.reconstruct([target.grant(attack.knows)], [np.random.default_rng(0)])
    return found


OWN = np.arange(1500, 1540)


def test_each_class_starts_from_an_own_image_of_it() -> None:
    own = digits().take(OWN)
    found = granted(start="population", noise=0.0, lr=1e-9)
    for label, image in enumerate(found.inputs):
        same = np.abs(own.inputs - image).max(axis=(1, 2, 3)) < 1e-6
        assert own.targets[same].tolist() in ([label], [label, label])
    assert not np.allclose(granted(start="population", steps=30).inputs, granted(steps=30).inputs)
    assert (granted(start="population").distance or 0) < 0.2, "it still climbs"


def test_images_stay_in_the_span_of_components() -> None:
    rows = digits().take(OWN).inputs.reshape(40, -1)
    middle = rows.mean(axis=0)
    directions = np.linalg.svd(rows - middle, full_matrices=False)[2][:5]
    beside = granted(components=5, steps=4, lr=0.01, start="population").inputs.reshape(10, -1) - middle
    inside = (beside @ directions.T @ directions + middle).clip(0, 1) - middle
    np.testing.assert_allclose(beside, inside, atol=0.05)
    free = granted(steps=4, lr=0.01, start="population").inputs.reshape(10, -1) - middle
    assert np.abs(free - free @ directions.T @ directions).max() > 0.3, "others leave it"
    assert np.isfinite(granted(components=500, steps=3).inputs).all(), "more components than images have"


def test_what_it_declares_is_what_it_needs() -> None:
    assert ClassInversion().knows == ()
    for fields in ({"start": "population"}, {"components": 50}):
        assert ClassInversion(**fields).knows == ("population",)
        with pytest.raises(ComponentError, match="examples of the adversary's own, and there are none"):
            inverted(network(), parameters(network()), **fields)
