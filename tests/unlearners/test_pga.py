"""Tests of `fedmem/unlearners/pga.py` on quadratic losses."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.unlearners.pga import Pga
from tests.unlearners.unlearner_helpers import three_clients


def test_it_starts_from_the_average_of_the_others() -> None:
    """A radius of almost nothing leaves (N θ − θ_k) / (N − 1), the mean of the other two models."""
    context = three_clients(forget=0)
    others = (context.locals[-1][1]["w"] + context.locals[-1][2]["w"]) / 2
    assert torch.allclose(Pga(radius=1e-9).unlearn(context)[0]["w"], others, atol=1e-5)


def test_clients_of_other_sizes_are_taken_out_by_their_weight() -> None:
    context = three_clients(forget=0)
    context.rows = {0: (0, 1, 0, 1), 1: (2, 3), 2: (4, 5)}
    context.__post_init__()
    others = (context.locals[-1][1]["w"] + context.locals[-1][2]["w"]) / 2
    assert torch.allclose(Pga(radius=1e-9).unlearn(context)[0]["w"], others, atol=1e-5)


def test_the_loss_rises_up_to_the_edge_of_the_ball() -> None:
    context = three_clients(forget=0)
    rows = context.runs[0].forgotten[0]
    start = Pga(radius=1e-9).unlearn(context)[0]
    far = Pga(radius=0.5, lr=1.0).unlearn(context)[0]
    assert torch.linalg.norm(far["w"] - start["w"]) == pytest.approx(0.5, rel=1e-4)
    assert context.gradient(0, 0, far, rows)[0] > context.gradient(0, 0, start, rows)[0]


def test_momentum_carries_the_last_step_on() -> None:
    """From w, steps η g₁ and η (g₂ + m g₁), with g = w − z̄ and z̄ = 3."""
    context = three_clients(forget=0)
    w = Pga(radius=1e-9).unlearn(context)[0]["w"].double()
    first = w - 3.0
    second = w + 0.1 * first - 3.0
    expected = w + 0.1 * first + 0.1 * (second + 0.5 * first)
    moved = Pga(radius=100.0, lr=0.1, momentum=0.5, clip=1e6, steps=2).unlearn(context)[0]["w"].double()
    assert torch.allclose(moved, expected, atol=1e-5)


def test_the_radius_is_a_third_of_that_to_random_networks() -> None:
    """All orders of equal values are one network."""
    context = three_clients(forget=0)
    context.initial = {"w": torch.full((2,), 7.0)}
    start = Pga(radius=1e-9).unlearn(context)[0]["w"]
    moved = Pga(lr=100.0).unlearn(context)[0]["w"]
    assert torch.linalg.norm(moved - start) == pytest.approx(float(torch.linalg.norm(start - 7.0)) / 3, rel=1e-4)


def test_nothing_to_forget_changes_nothing() -> None:
    context = three_clients()
    assert Pga().unlearn(context)[0] is context.history[-1]


def test_a_client_outside_the_last_round_is_refused() -> None:
    context = three_clients(forget=0, absent={3: (0,)})
    with pytest.raises(ComponentError, match=r"run 0, client 0: .*took no part in round 3.*everyone"):
        Pga().unlearn(context)


def test_the_only_client_is_refused() -> None:
    context = three_clients(forget=0, absent={3: (1, 2)})
    with pytest.raises(ComponentError, match="nothing is left without it"):
        Pga().unlearn(context)
