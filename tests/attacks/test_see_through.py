"""See through Gradients: its prior by hand, its group of starts, and what must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._matching import Matching, total_variation
from fedmem.attacks._problems import Problem, Solution, starts
from fedmem.attacks.see_through import SeeThrough
from fedmem.contracts.attack import GradientTarget
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.seeding import stream
from tests.lab import digits, network, parameters, target_of


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]


def target(size: int, first: int = 0, model: nn.Module | None = None) -> GradientTarget:
    model = model or network()
    return target_of(model, parameters(model), digits().take(np.arange(first, first + size)))


def test_prior_equals_its_formula_and_its_slope_is_autograds() -> None:
    """By hand, with the mean over the starts held fixed; of images that share a label none is drawn to it."""
    attack = SeeThrough(tv=0.3, l2=0.2, group=0.7, restarts=2)
    one, other = target(4), target(3, first=20)
    one, other = replace(one, labels=np.array([1, 4, 4, 7])), replace(other, labels=np.array([0, 2, 5]))
    problems = starts([one, other], streams(2), 2)
    matching = Matching(problems, torch.float64)
    images = matching.starts
    value, slope = attack._prior([[0, 1], [2, 3]], matching, images)
    for pair, alone, count in (([0, 1], [0, 3], 4), ([2, 3], [0, 1, 2], 3)):
        mean = images[pair].mean(0)
        for i in pair:
            own = images[i, :count].clone().requires_grad_()
            expected = 0.3 * total_variation(own[None], torch.full((1, count), 1 / count).double(), 2)[0].sum()
            squares = 0.2 * own.square().flatten(1).mean(1).mean()
            apart = torch.stack([(own[j] - mean[j]).square().mean() for j in alone]).sum() / count
            torch.testing.assert_close(value[i], (expected + squares + 0.7 * apart).detach())
            smooth = 0.3 * total_variation(own.detach()[None], torch.full((1, count), 1 / count).double(), 2)[1][0]
            torch.testing.assert_close(slope[i, :count], torch.autograd.grad(squares + 0.7 * apart, own)[0] + smooth)
            assert not slope[i, count:].any()


def test_starts_come_together_only_if_they_are_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: dict[float, float] = {}
    for group in (0.0, 100.0):
        attack = SeeThrough(steps=60, group=group, restarts=3)
        solve = SeeThrough._solve

        def watched(
            self: SeeThrough,
            problems: list[Problem],
            solve: Callable[[SeeThrough, list[Problem]], list[Solution]] = solve,
            group: float = group,
        ) -> list[Solution]:
            found = solve(self, problems)
            ends[group] = float(np.stack([one.inputs for one in found]).std(axis=0).mean())
            return found

        monkeypatch.setattr(SeeThrough, "_solve", watched)
        attack.reconstruct([target(8)], streams(1))
        monkeypatch.undo()
    assert ends[100.0] < 0.6 * ends[0.0]


def test_images_come_back_and_not_with_the_wrong_sign_or_scale() -> None:
    rows = digits().take(np.arange(8))
    given = target(8)

    def quality(factor: float) -> float:
        one = replace(given, gradient={n: factor * g for n, g in given.gradient.items()})
        (found,) = SeeThrough(steps=200).reconstruct([one], streams(1))
        errors = squared_errors(found.inputs, rows.inputs)
        return float(np.median(psnr(errors[assign(errors), np.arange(8)])))

    assert quality(1.0) > 25
    assert quality(-1.0) < 15
    assert quality(3.0) < 20


def test_see_through_targets_are_independent_and_blank_ones_nan() -> None:
    model = network(nn.Sigmoid)
    attack = SeeThrough(steps=30, restarts=2)
    given = [target(2, model=model), target(1, 30, model=model)]
    blank = replace(given[0], gradient={n: torch.zeros_like(g) for n, g in given[0].gradient.items()})
    alone = attack.reconstruct(given[1:], streams(2)[1:])[0]
    first, beside, lost = attack.reconstruct([*given, blank], streams(3))
    assert np.allclose(alone.inputs, beside.inputs, atol=1e-5)
    assert np.isnan(lost.distance)
    assert np.isfinite(lost.inputs).all()
    assert first.distance < 1
