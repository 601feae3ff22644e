"""Inputs divided out of a first layer: exact where it says so, and nowhere else (oracle: the true inputs)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._entrance import Entrance
from fedmem.attacks.linear_layer import LinearLayer
from fedmem.errors import TargetError
from tests.attacks.linear_layer_helpers import attacked, errors
from tests.lab import digits, network, parameters, target_of


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_one_example_is_exact_to_a_millionth(activation: type[nn.Module]) -> None:
    for i in range(10):
        model, row = network(activation, seed=i), digits().take(np.array([i]))
        target = target_of(model, parameters(model), row)
        found = attacked(target)
        assert errors(found, row).max() < 1e-6
        assert found.distance < 1e-6
        assert found.labels.tolist() == row.targets.tolist()


def test_steps_on_one_example_stay_exact_up_to_the_labels_sign() -> None:
    model, row = network(), digits().take(np.array([3]))
    params = parameters(model)
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    for _ in range(5):
        step = target_of(model, params, row).gradient
        total = {name: total[name] + value for name, value in step.items()}
        params = {name: params[name] - 0.1 * value for name, value in step.items()}
    target = replace(target_of(model, parameters(model), row), gradient=total)
    flipped = replace(target, gradient={name: -value for name, value in total.items()})
    assert errors(attacked(target), row).max() < 1e-6
    assert errors(attacked(flipped), row).max() < 1e-6
    assert attacked(target).labels.tolist() == row.targets.tolist() != attacked(flipped).labels.tolist()


def test_examples_that_activate_a_unit_alone_are_exact() -> None:
    exact = labelled = 0
    for i in range(6):
        model, rows = network(seed=i), digits().take(np.arange(8 * i, 8 * i + 8))
        found = attacked(target_of(model, parameters(model), rows))
        assert found.distance < 1
        table = errors(found, rows)
        assert table.min(1).max() < 1e-4
        assert len(set(table.argmin(1).tolist())) == len(found.inputs), "each once"
        exact += len(found.inputs)
        labelled += int((rows.targets[table.argmin(1)] == found.labels).sum())
    assert exact >= 40, "nearly all of eight"
    assert labelled == exact


def test_found_examples_are_subtracted_and_reveal_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, or with what was found added instead, only those that are alone at once are found."""
    model, rows = network(), digits().take(np.arange(8))
    target = target_of(model, parameters(model), rows)
    whole, rounds = attacked(target), []
    one_round = LinearLayer._isolated_in_rows

    def counted(self: LinearLayer, *given: Any) -> Any:
        rounds.append(one_round(self, *given))
        return rounds[-1]

    monkeypatch.setattr(LinearLayer, "_isolated_in_rows", counted)
    attacked(target)
    at_once = len(rounds[0][0])
    assert 0 < at_once < len(whole.inputs)
    forward = Entrance.forward
    monkeypatch.setattr(Entrance, "forward", lambda self, inputs: -forward(self, inputs))
    assert len(attacked(target).inputs) < len(whole.inputs)


def test_distance_is_zero_for_a_whole_batch_and_not_for_a_part() -> None:
    model = network()
    whole = attacked(target_of(model, parameters(model), digits().take(np.arange(4))))
    assert len(whole.inputs) == 4
    assert whole.distance < 1e-5
    some = attacked(target_of(model, parameters(model), digits().take(np.arange(32))))
    assert 0 < len(some.inputs) < 32
    assert 0.01 < some.distance < 1


def test_tanh_network_gives_no_exact_example_and_distance_1() -> None:
    model, rows = network(nn.Tanh), digits().take(np.arange(4))
    found = attacked(target_of(model, parameters(model), rows))
    assert found.distance == 1
    assert found.inputs.shape == (1, 1, 8, 8)
    assert errors(found, rows).min() > 0.1


@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_in_a_batch_sign_and_scale_decide_what_is_exact(factor: float) -> None:
    model, rows = network(), digits().take(np.arange(4))
    target = target_of(model, parameters(model), rows)
    scaled = replace(target, gradient={name: factor * value for name, value in target.gradient.items()})
    assert attacked(target).distance < 1
    assert attacked(scaled).distance == 1


def test_two_classes_are_not_mistaken_for_one_example() -> None:
    """With two classes d_ik is a product of one factor for i and one for k: all rows are parallel in any batch."""
    model, rows = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), digits().take(np.arange(3))
    rows = replace(rows, targets=np.array([0, 1, 1]))
    target = replace(target_of(model, parameters(model), rows), num_classes=2)
    found = attacked(target)
    assert found.distance == 1
    assert errors(found, rows).min() > 0.1


def test_equal_examples_are_not_found_and_nothing_false_is() -> None:
    model, rows = network(), digits().take(np.array([5, 5]))
    assert attacked(target_of(model, parameters(model), rows)).distance == 1


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_empty_gradient_gives_grey_and_no_distance(value: float) -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    found = attacked(replace(target, gradient={n: torch.full_like(g, value) for n, g in target.gradient.items()}))
    assert math.isnan(found.distance)
    assert (found.inputs == 0.5).all()


def test_noisy_gradient_of_one_example_has_distance_1() -> None:
    model, row = network(), digits().take(np.array([1]))
    target = target_of(model, parameters(model), row)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = {name: value + 0.01 * torch.randn_like(value) for name, value in target.gradient.items()}
    assert attacked(replace(target, gradient=noisy)).distance == 1


def test_a_target_that_does_not_fit_its_model_is_refused() -> None:
    target = target_of(network(), parameters(network()), digits().take(np.arange(1)))
    with pytest.raises(TargetError, match="num_images is 0"):
        attacked(replace(target, num_images=0))


def test_the_model_is_left_as_it_was() -> None:
    model, rows = network(), digits().take(np.arange(2))
    before = parameters(model)
    attacked(target_of(model, parameters(model), rows))
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert not any(module._forward_hooks for module in model.modules())
