"""Tests of `fedmem/attacks/_lbfgs.py`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from fedmem.attacks._lbfgs import minimise


def valley(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rosenbrock's, with its minimum at (1 + row, (1 + row)²)."""
    x = x.detach().requires_grad_()
    low = 1.0 + rows.double()
    value = (low - x[:, 0]).square() + 10 * (x[:, 1] - x[:, 0].square()).square()
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def valley_from(first: int, rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return valley(rows + first, x)


SETTING: dict[str, Any] = {"steps": 120, "lr": 1.0, "memory": 8, "enough": 1e-24}


def test_valleys_are_followed_to_their_ends() -> None:
    found = minimise(valley, torch.zeros(3, 2).double(), **SETTING)
    expected = torch.tensor([[1.0, 1.0], [2.0, 4.0], [3.0, 9.0]]).double()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_each_start_is_minimised_as_if_it_were_alone() -> None:
    start = torch.linspace(-1, 1, 8).reshape(4, 2).double()
    together = minimise(valley, start, **SETTING)
    for i in range(4):
        own = minimise(partial(valley_from, i), start[i : i + 1], **SETTING)
        torch.testing.assert_close(own[0], together[i], atol=1e-9, rtol=0)


def test_minimise_skips_finished_rows_and_leaves_nan_rows() -> None:
    asked: list[list[int]] = []

    def watched(rows: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(rows.tolist())
        value, slope = valley(rows, x)
        return torch.where(rows == 1, torch.nan, value), slope

    start = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]).double()
    found = minimise(watched, start, **SETTING)
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

    assert torch.equal(minimise(wrong, start, **SETTING), start)
