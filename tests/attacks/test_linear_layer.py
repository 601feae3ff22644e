"""Inputs divided out of a first layer: exact where it says so, and nowhere else (oracle: the true inputs)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import Known
from fedmem.apps.attack import target_of as known_target
from fedmem.attacks._entrance import Entrance
from fedmem.attacks.linear_layer import LinearLayer
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.errors import ComponentError, TargetError
from tests.lab import digits, network, parameters, target_of

RNG = np.random.default_rng(0)


def attacked(target: GradientTarget) -> Reconstruction:
    (found,) = LinearLayer().reconstruct([target], [RNG])
    return found


def errors(found: Reconstruction, rows: Examples) -> FloatArray:
    """(m, n) largest difference between any pixel of an image found and of a true one."""
    apart: FloatArray = np.abs(found.inputs[:, None].astype(np.float64) - rows.inputs[None])
    out: FloatArray = np.max(apart.reshape(len(found.inputs), len(rows), -1), axis=2)
    return out


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_one_example_is_exact_to_a_millionth(activation: type[nn.Module]) -> None:
    for i in range(10):
        model, row = network(activation, seed=i), digits().take(np.array([i]))
        target = target_of(model, parameters(model), row)
        found = attacked(target)
        assert errors(found, row).max() < 1e-6
        assert found.distance < 1e-6
        assert found.labels.tolist() == row.targets.tolist()


@pytest.mark.parametrize(
    "broken",
    [
        lambda rows: torch.cat([rows[:, :-1], -rows[:, -1:]], dim=1),
        lambda rows: torch.cat([rows[:, :-1], 1 / rows[:, -1:]], dim=1),
        lambda rows: torch.cat([2 * rows[:, :-1], rows[:, -1:]], dim=1),
    ],
    ids=["sign", "division", "normaliser"],
)
def test_a_broken_sign_division_or_normaliser_is_noticed(broken: object, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Entrance.rows
    monkeypatch.setattr(Entrance, "rows", lambda self, gradient: broken(rows(self, gradient)))  # type: ignore[operator]
    model, row = network(), digits().take(np.array([7]))
    assert errors(attacked(target_of(model, parameters(model), row)), row).max() > 0.1


def test_many_steps_on_one_example_are_still_exact_and_only_the_label_needs_the_sign() -> None:
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


def test_of_a_batch_those_that_move_a_unit_alone_are_exact_and_nothing_else_is_claimed() -> None:
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


def test_whoever_was_found_is_taken_away_and_uncovers_others(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_whole_batch_leaves_nothing_unexplained_and_part_of_it_does() -> None:
    model = network()
    whole = attacked(target_of(model, parameters(model), digits().take(np.arange(4))))
    assert len(whole.inputs) == 4
    assert whole.distance < 1e-5
    some = attacked(target_of(model, parameters(model), digits().take(np.arange(32))))
    assert 0 < len(some.inputs) < 32
    assert 0.01 < some.distance < 1


def test_where_every_example_moves_every_unit_nothing_is_exact_and_that_is_said() -> None:
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


def test_two_classes_whose_units_all_agree_are_not_mistaken_for_one_example() -> None:
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
def test_nothing_in_nothing_out(value: float) -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    found = attacked(replace(target, gradient={n: torch.full_like(g, value) for n, g in target.gradient.items()}))
    assert math.isnan(found.distance)
    assert (found.inputs == 0.5).all()


def test_noise_on_the_gradient_of_one_example_is_noticed() -> None:
    model, row = network(), digits().take(np.array([1]))
    target = target_of(model, parameters(model), row)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = {name: value + 0.01 * torch.randn_like(value) for name, value in target.gradient.items()}
    assert attacked(replace(target, gradient=noisy)).distance == 1


def test_inputs_that_the_model_normalises_come_back_as_they_were() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    image = np.random.default_rng(1).random((1, 3, 2, 2), dtype=np.float32)
    before = parameters(model)
    shifted = (torch.from_numpy(image) - 0.4) / 0.25
    gradient = torch.autograd.grad(
        nn.functional.cross_entropy(model(shifted), torch.tensor([6])), list(model.parameters())
    )
    known = Known(
        input_shape=(3, 2, 2), num_classes=10, num_images=1, lr=1.0, mean=(0.4, 0.4, 0.4), std=(0.25, 0.25, 0.25)
    )
    target = known_target(before, dict(zip(before, gradient, strict=True)), model, known, gradient=True)
    found = attacked(target)
    assert np.abs(found.inputs - image).max() < 1e-5
    assert found.labels.tolist() == [6]


class Tokens(nn.Module):
    """Reads whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(2, 4), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.embedding(x.flatten(1).long().clamp(0, 1)).flatten(1))
        return found


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)),
        nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(64, 10)),
        Tokens(),
    ],
    ids=["no bias", "convolution", "bent", "tokens"],
)
def test_other_first_layers_are_refused_by_name(model: nn.Module) -> None:
    target = target_of(model, parameters(model), digits().take(np.arange(1)))
    with pytest.raises(ComponentError, match="whose first layer is linear, has a bias"):
        attacked(target)


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
