"""Tests of `fedmem/attacks/kkt.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.attacks.kkt import Kkt
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.errors import ComponentError
from fedmem.modalities.tables import Tables
from fedmem.training import largest_margin
from fedmem.training.largest_margin import margins


def target_of(model: Any, labels: list[int] | None, width: int, **changes: Any) -> GradientTarget:
    settings: dict[str, Any] = {
        "params": {name: value.detach() for name, value in model.named_parameters()}, "gradient": {}, "num_images": 1,
        "input_shape": (width,), "num_classes": 2, "modality": Tables(), "knows": "",
        "labels": None if labels is None else np.array(labels),
    }  # fmt: skip
    return GradientTarget(model=model, **{**settings, **changes})


def found(target: GradientTarget, **fields: Any) -> Reconstruction:
    (result,) = Kkt(**{"steps": 400, "restarts": 1, **fields}).reconstruct([target], [np.random.default_rng(0)])
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
    """The row of the other label, times a negative multiplier, would explain the weights."""
    weight = [0.1, 0.9, 0.2]
    target, fields = target_of(linear(weight), [0], 3), {"candidates": 1, "lr": 0.003, "multiplier_lr": 0.2}
    free, bound = (found(target, **fields, penalty=penalty).inputs[0] for penalty in (0.0, 5.0))
    assert 1 - cosine(free, weight) < 5e-3
    assert 1 - cosine(bound + 1e-9, weight) > 0.05


def test_gradients_of_the_wrong_sign_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = largest_margin.margin_gradient
    monkeypatch.setattr(largest_margin, "margin_gradient", lambda *args, **more: -real(*args, **more))
    assert found(target_of(linear([0.1, 0.7, 0.4]), [1], 3), candidates=1).distance > 0.9


class Centred(torch.nn.Module):
    """A network with one hidden layer, of inputs from which 0.5 is subtracted and which are then multiplied by 4."""

    def __init__(self, hidden: Any, bias: Any, output: Any) -> None:
        super().__init__()
        self.hidden = torch.nn.Parameter(torch.tensor(hidden).double())
        self.bias = torch.nn.Parameter(torch.tensor(bias).double())
        self.output = torch.nn.Parameter(torch.tensor(output).double())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        moved = 4 * (inputs - 0.5)
        return torch.relu(moved @ self.hidden.T + self.bias) @ self.output.T


POINTS = np.array([[0.9, 0.7], [0.2, 0.4]])
"""One on each side of the middle, so that a unit can fire for one of them alone."""


def largest_margin_of(points: Any, labels: list[int], used: list[bool]) -> Centred:
    """A network whose weights are the combination of margin gradients of these rows, with a unit for each.

    With the moved row z, a unit of weights w and bias b that fires for it alone, output weights ±c and the sign s of
    its label, the condition is `(w, b) = lambda 2 s c (z, 1)` and `c = lambda s (w z + b)`. It holds for
    s = sign(c) where lambda² 2 (|z|² + 1) = 1. So w / b is the moved row, without any scale left over.
    """
    moved = 4 * (np.asarray(points) - 0.5)
    strengths = [float(one) / math.sqrt(2 * (row @ row + 1)) for one, row in zip(used, moved, strict=True)]
    signs = np.array([1.0 if label else -1.0 for label in labels]) * used
    twice = np.array([2 * strength for strength in strengths])
    return Centred(moved * twice[:, None], twice, np.stack([-signs, signs]))


def test_two_points_in_the_plane_come_back() -> None:
    result = found(
        target_of(largest_margin_of(POINTS, [1, 0], [True, True]), [0, 1], 2), candidates=1, steps=600, restarts=2
    )
    np.testing.assert_allclose(result.inputs, POINTS[::-1], atol=2e-3)
    assert result.distance < 1e-3


def test_counts_of_the_wrong_labels_find_nothing() -> None:
    result = found(target_of(largest_margin_of(POINTS, [1, 0], [True, True]), [0, 0], 2), candidates=1, steps=300)
    assert result.distance > 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_two_points_are_lost_with_a_wrong_margin(monkeypatch: pytest.MonkeyPatch, sign: float) -> None:
    """The margin in its other direction, and as the sum of both outputs."""
    monkeypatch.setattr(
        largest_margin,
        "margins",
        lambda outputs, labels: sign * outputs.sum(-1) if sign > 0 else -margins(outputs, labels),
    )
    result = found(target_of(largest_margin_of(POINTS, [1, 0], [True, True]), [0, 1], 2), candidates=1, steps=300)
    assert np.abs(result.inputs - POINTS[::-1]).max() > 0.1


def test_a_row_with_multiplier_zero_cannot_come_back() -> None:
    """The weights are the same wherever such a row is, so nothing about it can be found."""
    results = []
    for other in ([0.2, 0.4], [0.3, 0.1]):
        model = largest_margin_of(np.array([[0.9, 0.7], other]), [1, 0], [True, False])
        results.append(found(target_of(model, [0, 1], 2), candidates=1, steps=100).inputs)
    np.testing.assert_array_equal(results[0], results[1])


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
