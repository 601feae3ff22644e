"""DLG, iDLG and the L-BFGS below them: closed forms, independence of neighbours, and what must fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.attacks._lbfgs import minimise
from fedmem.attacks.dlg import DLG
from fedmem.attacks.idlg import IDLG
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.modalities.numbers import psnr, squared_errors
from fedmem.modalities.pairing import assign
from fedmem.seeding import stream
from tests.lab import digits, network, parameters, target_of

BOTH = [DLG(steps=150), IDLG(steps=150)]


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]


def targets(model: nn.Module, sizes: Sequence[int]) -> tuple[list[GradientTarget], list[Examples]]:
    rows = [digits().take(np.arange(10 * i, 10 * i + n)) for i, n in enumerate(sizes)]
    return [target_of(model, parameters(model), one) for one in rows], rows


def quality(found: Sequence[Reconstruction], rows: Sequence[Examples]) -> FloatArray:
    every = []
    for one, truth in zip(found, rows, strict=True):
        errors = squared_errors(one.inputs, truth.inputs)
        every.append(psnr(errors[assign(errors), np.arange(len(truth))]))
    return np.concatenate(every)


# L-BFGS


def valley(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rosenbrock's, with its minimum at (1 + row, (1 + row)²)."""
    x = x.detach().requires_grad_()
    low = 1.0 + rows.double()
    value = (low - x[:, 0]).square() + 10 * (x[:, 1] - x[:, 0].square()).square()
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


SETTING = {"steps": 120, "lr": 1.0, "memory": 8, "enough": 1e-24}


def test_valleys_are_followed_to_their_ends() -> None:
    found = minimise(valley, torch.zeros(3, 2).double(), **SETTING)  # type: ignore[arg-type]
    expected = torch.tensor([[1.0, 1.0], [2.0, 4.0], [3.0, 9.0]]).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_nobody_notices_who_is_beside_him() -> None:
    start = torch.linspace(-1, 1, 8).reshape(4, 2).double()
    together = minimise(valley, start, **SETTING)  # type: ignore[arg-type]
    for i in range(4):
        own = minimise(lambda rows, x, i=i: valley(rows + i, x), start[i : i + 1], **SETTING)  # type: ignore[misc, arg-type]
        torch.testing.assert_close(own[0], together[i], atol=1e-9, rtol=0)


def test_who_is_done_is_asked_no_more_and_what_is_no_number_is_left() -> None:
    asked: list[list[int]] = []

    def watched(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(rows.tolist())
        value, slope = valley(rows, x)
        return torch.where(rows == 1, torch.nan, value), slope

    start = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).double()
    found = minimise(watched, start, **SETTING)  # type: ignore[arg-type]
    assert asked[:2] == [[0, 1, 2], [2]]
    assert torch.equal(found[:2], start[:2])
    assert len(asked) < SETTING["steps"], "the last one arrived and left"


def test_values_never_rise_and_steps_are_counted() -> None:
    values: list[float] = []

    def watched(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = valley(rows, x)
        values.append(float(value[0]))
        return value, slope

    reached = []
    for steps in (1, 5, 20, 60):
        values.clear()
        found = minimise(watched, torch.full((1, 2), -1.0).double(), steps=steps, lr=1.0, memory=8, enough=0.0)
        assert len(values) == steps or (steps == 60 and len(values) < steps)
        reached.append(float(valley(torch.zeros(1), found)[0][0]))
        assert reached[-1] == min(values)
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] < 1e-6 * reached[0]


def test_a_start_from_which_nothing_falls_is_kept() -> None:
    """A slope with the wrong sign leads nowhere: the search ends by itself, without moving."""
    start = torch.full((1, 2), 0.5).double()

    def wrong(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, slope = valley(rows, x)
        return value, -slope

    assert torch.equal(minimise(wrong, start, **SETTING), start)  # type: ignore[arg-type]


# The attacks


@pytest.mark.parametrize("attack", BOTH)
def test_a_linear_layer_with_bias_gives_its_example_away(attack: DLG | IDLG) -> None:
    """Oracle: x = (dl/dW_j) / (dl/db_j) exactly."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    (target,), (row,) = targets(model, [1])
    unit = int(target.gradient["1.bias"].abs().argmax())
    exact = (target.gradient["1.weight"].double()[unit] / target.gradient["1.bias"].double()[unit]).numpy()
    (found,) = attack.reconstruct([target], streams(1))
    assert np.abs(found.inputs.reshape(-1) - exact).max() < 1e-4
    assert found.labels.tolist() == row.targets.tolist()
    assert 0 <= found.distance < 1e-9


@pytest.mark.parametrize("attack", BOTH)
def test_smooth_networks_give_single_images_and_labels_away(attack: DLG | IDLG) -> None:
    given, rows = targets(network(nn.Sigmoid), [1] * 6)
    found = attack.reconstruct(given, streams(6))
    assert np.median(quality(found, rows)) > 40
    assert [one.labels[0] for one in found] == [row.targets[0] for row in rows]


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_sign_and_scale_count(attack: DLG | IDLG, factor: float) -> None:
    given, rows = targets(network(nn.Sigmoid), [1] * 4)
    wrong = [replace(one, gradient={n: factor * g for n, g in one.gradient.items()}) for one in given]
    found = attack.reconstruct(wrong, streams(4))
    assert np.median(quality(found, rows)) < 20
    assert all(one.distance > 1e-4 for one in found)


def test_the_label_comes_first_in_the_one_and_last_in_the_other() -> None:
    """iDLG reads the negative entry of the bias; DLG has no use for it, and finds the label with the image."""
    (target,), (row,) = targets(network(nn.Sigmoid), [1])
    hidden = replace(target, gradient={**target.gradient, "3.bias": target.gradient["3.bias"].flip(0)})
    (first,), (last,) = (attack.reconstruct([hidden], streams(1)) for attack in (IDLG(steps=60), DLG(steps=60)))
    assert first.labels.tolist() == [9 - row.targets[0]]
    assert last.labels.tolist() == row.targets.tolist()


@pytest.mark.parametrize("attack", BOTH)
def test_batches_of_unlike_sizes_share_a_stack_and_come_sorted(attack: DLG | IDLG) -> None:
    given, rows = targets(network(nn.Sigmoid), [2, 1, 3])
    together = attack.reconstruct(given, streams(3))
    assert [len(one.inputs) for one in together] == [2, 1, 3]
    for i, one in enumerate(together):
        assert one.inputs.dtype == np.float32
        assert 0 <= one.inputs.min() <= one.inputs.max() <= 1
        assert one.labels.tolist() == sorted(one.labels.tolist())
        (alone,) = attack.reconstruct([given[i]], streams(3)[i : i + 1])
        assert alone.labels.tolist() == one.labels.tolist()
        if one.distance < 1e-8:
            assert np.abs(alone.inputs - one.inputs).max() < 1e-2
    assert quality(together[1:2], rows[1:2])[0] > 40


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_target_without_a_direction_has_no_distance_and_disturbs_nobody(attack: DLG | IDLG, value: float) -> None:
    given, rows = targets(network(nn.Sigmoid), [1, 1])
    blank = replace(given[0], gradient={n: torch.full_like(g, value) for n, g in given[0].gradient.items()})
    lost, beside = attack.reconstruct([blank, given[1]], streams(2))
    assert np.isnan(lost.distance)
    assert np.isfinite(lost.inputs).all()
    assert quality([beside], rows[1:])[0] > 40


@pytest.mark.parametrize("kind", [DLG, IDLG])
def test_restarts_are_chosen_by_their_distance(kind: type[DLG | IDLG]) -> None:
    given, _ = targets(network(nn.ReLU), [2])
    alone = [kind(steps=12, restarts=n).reconstruct(given, streams(1))[0].distance for n in (1, 4)]
    assert alone[1] <= alone[0]
