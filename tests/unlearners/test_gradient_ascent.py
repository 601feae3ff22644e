"""Tests of `fedmem/unlearners/gradient_ascent.py` on quadratic losses."""

from __future__ import annotations

import pytest
import torch

from fedmem.unlearners.gradient_ascent import GradientAscent
from tests.unlearners.unlearner_helpers import Quadratic, model, number, three_clients


def one_client(before: float = 1.0, **changes: object) -> Quadratic:
    """Client 0 with the numbers 0 (to be forgotten) and 3."""
    settings: dict[str, object] = {
        "values": {0: 0.0, 1: 3.0},
        "rows": {0: (0, 1)},
        "retained": {0: (1,)},
        "initial": model(before),
        "rounds_before": 0,
        "forgotten": {0: (0,)},
    }
    return Quadratic(**{**settings, **changes})  # type: ignore[arg-type]


def test_steps_go_up_the_loss_by_the_closed_form() -> None:
    """The slope of ½ w² is w, so that every step multiplies w by 1 + η."""
    ascent = GradientAscent(lr=0.1, steps=5, clip=100.0, stop_at="steps")
    assert number(ascent.unlearn(one_client())[0]) == pytest.approx(1.1**5)


def test_retained_rows_pull_down_their_own_loss() -> None:
    """w grows by η ((1 − α) w − α (w − 3))."""
    ascent = GradientAscent(lr=0.1, steps=1, clip=100.0, retain=0.25, stop_at="steps")
    assert number(ascent.unlearn(one_client())[0]) == pytest.approx(1 + 0.1 * (0.75 * 1 - 0.25 * (1 - 3)))


def test_a_client_without_retained_rows_only_ascends() -> None:
    ascent = GradientAscent(lr=0.1, steps=1, clip=100.0, retain=0.25, stop_at="steps")
    assert number(ascent.unlearn(one_client(retained={}))[0]) == pytest.approx(1 + 0.1 * 0.75)


def test_the_whole_direction_is_clipped() -> None:
    ascent = GradientAscent(lr=0.1, steps=3, clip=0.5, stop_at="steps")
    assert number(ascent.unlearn(one_client())[0]) == pytest.approx(1 + 3 * 0.1 * 0.5)


def test_it_stops_at_the_loss_of_the_population() -> None:
    """The population at 3 has the loss 2 at w = 1; ½ w² is 2 at w = 2."""
    ascent = GradientAscent(lr=0.01, steps=1000, clip=100.0)
    assert 2.0 <= number(ascent.unlearn(one_client(population=3.0))[0]) < 2.0 * 1.01


def test_a_loss_above_that_of_the_population_stays() -> None:
    assert number(GradientAscent().unlearn(one_client(population=1.0))[0]) == 1.0


def test_nothing_to_forget_changes_nothing() -> None:
    context = one_client(forgotten={})
    assert GradientAscent(stop_at="steps").unlearn(context)[0] is context.initial


def test_only_clients_that_forget_are_averaged_by_size() -> None:
    context = three_clients(forgotten={0: (0,), 1: (2,)}, leaving=(), retained={0: (1,), 1: (3,), 2: (4, 5)})
    ascent = GradientAscent(lr=0.1, steps=1, clip=1e6, stop_at="steps")
    start = context.history[-1]["w"].double()
    expected = start + 0.1 * ((start - 4.0) + (start + 1.0)) / 2
    assert torch.allclose(ascent.unlearn(context)[0]["w"].double(), expected, atol=1e-6)


def test_a_gradient_of_zero_is_no_step() -> None:
    assert number(GradientAscent(steps=2, stop_at="steps").unlearn(one_client(before=0.0))[0]) == 0.0


def test_steps_and_population_are_declared() -> None:
    assert GradientAscent(steps=7).steps == 7
    assert GradientAscent().needs_population
