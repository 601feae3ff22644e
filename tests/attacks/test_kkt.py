"""Tests of `fedmem/attacks/kkt.py`."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.attacks import kkt
from fedmem.attacks.kkt import Kkt, margin_gradient, margins
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from fedmem.models.mlp import MLP


def target_of(model: Any, labels: list[int] | None, width: int, **changes: Any) -> GradientTarget:
    settings: dict[str, Any] = {
        "params": {name: value.detach() for name, value in model.named_parameters()}, "gradient": {}, "num_images": 1,
        "input_shape": (width,), "num_classes": 2, "modality": Tables(), "knows": "",
        "labels": None if labels is None else np.array(labels),
    }  # fmt: skip
    return GradientTarget(model=model, **{**settings, **changes})


def found(target: GradientTarget, **fields: Any) -> Reconstruction:
    (result,) = Kkt(**fields).reconstruct([target], [np.random.default_rng(0)])
    return result


def linear(weight: list[float]) -> torch.nn.Linear:
    """A linear model with the logits w x and -w x."""
    model = torch.nn.Linear(len(weight), 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-value for value in weight], weight]))
    return model


def cosine(one: Any, other: Any) -> float:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_one_row_of_a_linear_model_is_its_weights() -> None:
    weight = [0.1, 0.7, 0.4, 0.2, 0.0]
    result = found(target_of(linear(weight), [1], 5), candidates=1)
    assert 1 - cosine(result.inputs[0], weight) < 1e-6
    assert result.distance < 1e-6
    assert result.labels.tolist() == [1]


def test_the_other_label_finds_nothing() -> None:
    """Inputs and multipliers are at least 0, so that the sign of the weights decides the label."""
    result = found(target_of(linear([0.1, 0.7, 0.4]), [0], 3), candidates=1)
    assert result.distance > 0.9


def test_without_its_penalty_a_multiplier_turns_negative() -> None:
    """Inputs hardly move here, so that only a negative multiplier explains weights of the other sign."""
    target, fields = target_of(linear([-0.5, -0.5]), [1], 2), {"candidates": 1, "lr": 1e-6, "noise": 0.0}
    assert found(target, **fields).distance > 0.8, "of a soft penalty"
    assert found(target, **fields, penalty=0.0).distance < 0.01


def test_gradients_of_the_wrong_sign_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kkt.margin_gradient
    monkeypatch.setattr(kkt, "margin_gradient", lambda *args, **more: -real(*args, **more))
    assert found(target_of(linear([0.1, 0.7, 0.4]), [1], 3), candidates=1).distance > 0.9


POINTS = np.array([[0.9, 0.3], [0.2, 0.8]])


def hidden_of(points: Any, labels: list[int], multipliers: list[float]) -> torch.nn.Module:
    """A network of one hidden layer whose weights are the combination of margin gradients of these rows.

    Units fire for one of the rows alone. With first weights a_i x_i' and output weights c_i, both equations
    `w_i = lambda_i 2 c_i x_i` and `2 c_i = lambda_i 2 relu(w_i x_i)` hold where lambda_i² |x_i|² 2 = 1.
    """
    model = MLP(hidden=(len(points),), biases="none").build((points.shape[1],), 2).double()
    with torch.no_grad():
        for i, (row, label, multiplier) in enumerate(zip(points, labels, multipliers, strict=True)):
            sign = 1.0 if label else -1.0
            strength = 1.0 if multiplier else 0.0
            model.hidden1.weight[i] = torch.from_numpy(strength * row * math.sqrt(2) / np.linalg.norm(row))
            model.output.weight[:, i] = torch.tensor([-sign * strength, sign * strength])
    return model


def test_a_row_comes_back_from_a_hidden_layer() -> None:
    row = np.array([[0.9, 0.3, 0.5]])
    model = hidden_of(row, [1], [1.0])
    result = found(target_of(model, [1], 3), candidates=1)
    assert 1 - cosine(result.inputs[0], row[0]) < 1e-4
    assert result.distance < 1e-2


def trained(points: Any, labels: Any, steps: int = 1500) -> torch.nn.Module:
    """A homogeneous network at a stationary point with weight decay, where the condition holds exactly."""
    torch.manual_seed(0)
    model = MLP(hidden=(16,), biases="first", initial_scale=0.3).build((2,), 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.01, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(points)), torch.tensor(labels)).backward()
        optimizer.step()
    return model


def test_two_points_in_the_plane_come_back() -> None:
    """Up to the sigmoid, which is not the step of ReLU."""
    model = trained(POINTS, [1, 0])
    result = found(target_of(model, [0, 1], 2), candidates=1, steps=1000)
    assert result.distance < 0.1
    np.testing.assert_allclose(result.inputs, POINTS[::-1], atol=0.1)
    assert found(target_of(model, [0, 0], 2), candidates=1, steps=200).distance > 0.5, "counts per label matter"


def test_a_row_with_multiplier_zero_cannot_come_back() -> None:
    """The weights are the same wherever such a row is, so nothing about it can be found."""
    results = []
    for other in ([0.0, 0.8], [0.0, 0.2]):
        model = hidden_of(np.array([[0.9, 0.0], other]), [1, 0], [1.0, 0.0])
        results.append(found(target_of(model, [0, 1], 2), candidates=1, steps=200).inputs)
    np.testing.assert_array_equal(*results)


def test_an_update_is_added_to_the_weights() -> None:
    model = linear([0.1, 0.7, 0.4])
    half = {name: value.detach() / 2 for name, value in model.named_parameters()}
    whole, parts = target_of(model, [1], 3), target_of(model, [1], 3, params=half, update=half)
    np.testing.assert_allclose(found(whole, steps=50).inputs, found(parts, steps=50).inputs, atol=1e-6)


def test_weights_of_zero_or_not_finite_give_grey() -> None:
    for value in (0.0, math.nan, math.inf):
        result = found(target_of(linear([value, value]), [0, 1], 2), candidates=3)
        assert math.isnan(result.distance)
        assert set(result.inputs.ravel().tolist()) == {0.5}
        assert len(result.inputs) == 6
        assert "zero or not finite" in result.note


def test_counts_per_label_are_needed() -> None:
    with pytest.raises(ComponentError, match="counts per label"):
        found(target_of(linear([0.1, 0.2]), None, 2))
    assert Kkt().knows == ("labels",)


def test_the_sigmoid_is_in_backward_passes_alone() -> None:
    model = MLP(hidden=(3,)).build((2,), 2).double()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    before = copy.deepcopy(weights)
    inputs, labels = torch.rand(4, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    ones = torch.ones(4, dtype=torch.float64)
    hard = margin_gradient(model, weights, inputs, labels, ones)
    nearly = margin_gradient(model, weights, inputs, labels, ones, sharpness=1e7)
    soft = margin_gradient(model, weights, inputs, labels, ones, sharpness=1.0)
    torch.testing.assert_close(hard, nearly)
    assert float((hard - soft).detach().norm()) > 1e-3
    # the gradient of output weights is the value of the units, which no sigmoid changes
    torch.testing.assert_close(hard[-8:], soft[-8:])
    for name, value in weights.items():
        torch.testing.assert_close(value, before[name])


def test_margin_gradient_agrees_with_autograd() -> None:
    model = MLP(hidden=(3,)).build((2,), 3).double()
    inputs, labels = torch.rand(2, 2, dtype=torch.float64), torch.tensor([2, 0])
    total = (margins(model(inputs), labels) * torch.tensor([1.0, 3.0])).sum()
    expected = torch.cat([slope.flatten() for slope in torch.autograd.grad(total, list(model.parameters()))])
    weights = {name: value.detach() for name, value in model.named_parameters()}
    multipliers = torch.tensor([1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(margin_gradient(model, weights, inputs, labels, multipliers), expected)
