from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._matching import Matching, total_variation
from fedmem.attacks._problems import Problem, starts
from fedmem.attacks.inverting_gradients import InvertingGradients
from fedmem.contracts.data import Examples
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.seeding import stream
from tests.attacks.inverting_gradients_helpers import QUICK, streams
from tests.lab import digits, gradient_of, network, parameters, target_of


def test_linear_layer_with_bias_reveals_its_example_exactly() -> None:
    """Oracle: x = (dl/dW_j) / (dl/db_j) for any unit j, exactly; the optimiser must find the same image."""
    model, row = network(), digits().take(np.array([7]))
    gradient = gradient_of(model, parameters(model), row.inputs, row.targets)
    weight, bias = gradient["1.weight"].double(), gradient["1.bias"].double()
    unit = int(bias.abs().argmax())
    exact = (weight[unit] / bias[unit]).numpy()
    assert np.abs(exact - row.inputs.reshape(-1)).max() < 1e-6
    (found,) = InvertingGradients(tv=0.0).reconstruct([target_of(model, parameters(model), row)], [stream(0, "x")])
    assert np.abs(found.inputs.reshape(-1) - exact).max() < 0.01
    assert found.labels.tolist() == row.targets.tolist()
    assert 0 <= found.distance + 1e-6 < 1e-4


def test_only_the_direction_counts() -> None:
    model, rows = network(), digits().take(np.arange(3))
    target = target_of(model, parameters(model), rows)
    scaled = replace(target, gradient={name: 1024 * value for name, value in target.gradient.items()})
    first, second = (QUICK.reconstruct([t], [stream(0, "x")])[0] for t in (target, scaled))
    assert np.array_equal(first.inputs, second.inputs)


def test_targets_do_not_disturb_each_other_whatever_their_sizes() -> None:
    """Padding and stacking leave distance and slope of each problem as they are alone."""
    model, data = network(), digits()
    sizes = enumerate((1, 4, 2))
    targets = [target_of(model, parameters(model), data.take(np.arange(i, i + n))) for i, n in sizes]
    problems = starts(targets, streams(3), 1)

    def look(some: list[Problem]) -> tuple[torch.Tensor, torch.Tensor]:
        stacked = Matching(some)
        images = stacked.starts.requires_grad_()
        distances = stacked.cosine(images)
        return distances.detach(), torch.autograd.grad(distances.sum(), images)[0]

    distances, slopes = look(problems)
    for i, problem in enumerate(problems):
        distance, slope = look([problem])
        count = len(problem.labels)
        assert torch.allclose(distances[i], distance[0], atol=1e-6)
        assert torch.allclose(slopes[i, :count], slope[0], atol=1e-6, rtol=1e-3)
        assert not slopes[i, count:].any()


def test_stacks_are_cut_without_changing_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = network(), digits()
    targets = [target_of(model, parameters(model), data.take(np.arange(n))) for n in (1, 3, 2)]
    monkeypatch.setattr("fedmem.attacks._problems.STACK_VALUES", 1)
    assert [len(found.inputs) for found in QUICK.reconstruct(targets, streams(3))] == [1, 3, 2]
    assert QUICK.reconstruct([], []) == []


def test_inverted_images_do_not_depend_on_other_targets() -> None:
    model, data = network(), digits()
    first, second = (target_of(model, parameters(model), data.take(np.arange(n, n + 2))) for n in (0, 5))
    alone = QUICK.reconstruct([second], streams(2)[1:])[0]
    beside = QUICK.reconstruct([first, second], streams(2))[1]
    assert np.allclose(alone.inputs, beside.inputs, atol=1e-4)
    assert not np.allclose(alone.inputs, QUICK.reconstruct([second], streams(1))[0].inputs, atol=1e-2)


def test_a_restart_without_a_distance_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = network(), digits().take(np.arange(2))
    solve = InvertingGradients._solve

    def first_is_lost(self: InvertingGradients, problems: Any) -> Any:
        solved = solve(self, problems)
        return [replace(solved[0], distance=math.nan), *solved[1:]]

    monkeypatch.setattr(InvertingGradients, "_solve", first_is_lost)
    attack = InvertingGradients(steps=3, restarts=3)
    (found,) = attack.reconstruct([target_of(model, parameters(model), rows)], streams(1))
    assert not math.isnan(found.distance)


def test_the_restart_with_the_smallest_distance_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = network(), digits().take(np.arange(2))
    attack = InvertingGradients(steps=3, restarts=4)
    distances: list[float] = []
    solve = InvertingGradients._solve

    def watched(self: InvertingGradients, problems: Any) -> Any:
        solved = solve(self, problems)
        distances.extend(one.distance for one in solved)
        return solved

    monkeypatch.setattr(InvertingGradients, "_solve", watched)
    (found,) = attack.reconstruct([target_of(model, parameters(model), rows)], [stream(0, "x")])
    assert len(set(distances)) == 4
    assert found.distance == min(distances)


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_gradient_without_direction_has_nan_distance(value: float) -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    blank = replace(target, gradient={name: torch.full_like(g, value) for name, g in target.gradient.items()})
    beside, found = QUICK.reconstruct([target, blank], streams(2))
    assert math.isnan(found.distance)
    assert not math.isnan(beside.distance)
    assert np.isfinite(found.inputs).all()


def test_a_diverged_model_does_not_fail() -> None:
    model, rows = network(), digits().take(np.arange(2))
    target = target_of(model, parameters(model), rows)
    broken = replace(target, params={name: torch.full_like(p, math.nan) for name, p in target.params.items()})
    (found,) = QUICK.reconstruct([broken], [stream(0, "x")])
    assert math.isnan(found.distance)
    assert np.isfinite(found.inputs).all()


def test_the_model_is_left_as_it_was() -> None:
    model, rows = network(), digits().take(np.arange(2))
    before, mode = parameters(model), model.training
    QUICK.reconstruct([target_of(model, parameters(model), rows)], [stream(0, "x")])
    assert model.training == mode
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    assert all(value.grad is None for value in model.parameters())


def variation(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The sum over problems, its slope checked against autograd."""
    values, slope = total_variation(images, weights, 2 if images.ndim > 3 else 0)
    leaf = images.clone().requires_grad_()
    total = leaf.new_zeros(())
    for dim in (-2, -1) if images.ndim > 3 else ():
        if images.shape[dim] > 1:
            total = total + (leaf.diff(dim=dim).abs().flatten(2).mean(2) * weights).sum()
    if total.requires_grad:
        torch.testing.assert_close(slope, torch.autograd.grad(total, leaf)[0])
    else:
        assert not slope.any()
    torch.testing.assert_close(values.sum(), total.detach())
    return values.sum()


def test_total_variation_by_hand_and_for_any_number_of_channels() -> None:
    image = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    stack = torch.stack([image, torch.zeros_like(image)])[None]
    half = torch.full((1, 2), 0.5)
    # image: height 0, width 1; the other is flat; averaged over the two of the batch
    assert variation(stack, half).item() == pytest.approx(0.5)
    assert variation(stack.expand(-1, -1, 3, -1, -1), half).item() == pytest.approx(0.5)
    assert variation(torch.cat([stack, stack]), half.expand(2, 2)).item() == pytest.approx(1.0)
    assert variation(torch.rand(1, 2, 1, 1, 4), half).isfinite()
    assert variation(torch.rand(1, 2, 7), half).item() == 0
    padded = torch.cat([stack, torch.zeros(1, 58, 1, 2, 2)], dim=1)
    weights = torch.cat([half, torch.zeros(1, 58)], dim=1)
    assert variation(padded, weights).item() == pytest.approx(0.5), "padding has no weight"


def test_smoothing_does_not_depend_on_larger_targets() -> None:
    model, data = network(), digits()
    small, large = (target_of(model, parameters(model), data.take(np.arange(n))) for n in (2, 60))
    attack = InvertingGradients(steps=60, tv=0.1)
    (alone,) = attack.reconstruct([small], streams(1))
    beside, _ = attack.reconstruct([small, large], streams(2))
    assert np.allclose(alone.inputs, beside.inputs, atol=1e-3)
    rough, _ = InvertingGradients(steps=60, tv=0.1 * 2 / 60).reconstruct([small, large], streams(2))
    assert not np.allclose(alone.inputs, rough.inputs, atol=0.05), "a thinner weight is seen"


def test_colour_images_and_vectors_are_both_inverted() -> None:
    for shape in ((3, 4, 4), (12,)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 10))
        inputs = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
        rows = Examples(inputs=inputs, targets=np.array([4]), ids=np.array([0]))
        target = target_of(model, parameters(model), rows)
        (found,) = InvertingGradients(tv=0.0).reconstruct([target], [stream(0, "x")])
        assert psnr(squared_errors(found.inputs, inputs))[0, 0] > 30
