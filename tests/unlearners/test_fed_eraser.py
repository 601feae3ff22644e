"""Tests of `fedmem/unlearners/fed_eraser.py`: it replays a run, and does not repeat the mistakes of published code."""

from __future__ import annotations

import pytest
import torch

from fedmem.unlearners.fed_eraser import FedEraser
from tests.unlearners.unlearner_helpers import LR, STEPS, Quadratic, model, three_clients

WHOLE = FedEraser(every=1, share=1.0)


def erased(context: Quadratic, eraser: FedEraser = WHOLE) -> torch.Tensor:
    return eraser.unlearn(context)[0]["w"].double()


def test_with_nobody_forgotten_it_reproduces_the_run() -> None:
    context = three_clients()
    assert torch.allclose(erased(context), context.history[-1]["w"].double(), atol=1e-6)
    assert context.trained == 9


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_directions_of_fewer_steps_have_the_stored_length(share: float) -> None:
    """From the same start, a quadratic in one variable moves in the same direction after any number of steps."""
    context = three_clients(initial=model(1.0))
    assert torch.allclose(
        erased(context, FedEraser(every=1, share=share)), context.history[-1]["w"].double(), atol=1e-5
    )


@pytest.mark.parametrize("forget", [0, 1, 2])
def test_any_forgotten_client_leaves_the_average(forget: int) -> None:
    """In published code only the client of the last index does: the model of another is averaged in, untrained."""
    context = three_clients(forget=forget, rounds_before=1)
    others = three_clients(rounds_before=1)
    others.rows = {client: rows for client, rows in others.rows.items() if client != forget}
    others.__post_init__()
    assert torch.allclose(erased(context), others.history[-1]["w"].double(), atol=1e-6)
    assert context.trained == 2


def test_the_length_is_that_of_the_stored_updates_of_the_round() -> None:
    """Published code takes the distance of the mean model of the clients to the aggregate *after* the round."""
    context = three_clients(forget=0, rounds_before=1)
    mean = (context.locals[1][1]["w"] + context.locals[1][2]["w"]).double() / 2
    start = context.initial["w"].double()
    assert torch.linalg.norm(erased(context) - start) == pytest.approx(float(torch.linalg.norm(mean - start)), rel=1e-5)
    assert torch.linalg.norm(mean - context.history[1]["w"].double()) < 0.9 * torch.linalg.norm(mean - start)


def test_an_update_of_zero_has_no_direction_and_no_nan() -> None:
    context = three_clients(forget=0, initial=model(0.0), rounds_before=1)
    # the remaining clients pull to 0 together, which is where they start
    context.retained = {1: (6,), 2: (6,)}
    context.values = {**context.values, 6: 0.0}
    assert erased(context).tolist() == [0.0]


def test_forgotten_examples_are_replaced_in_new_updates() -> None:
    context = three_clients(forgotten={0: (0,)}, leaving=(), rounds_before=1)
    context.retained = {0: (1, 6), 1: (2, 3), 2: (4, 5)}
    context.values = {**context.values, 6: 9.0}
    start, kept = context.initial["w"].double(), 1 - (1 - LR) ** STEPS
    new = kept * ((5.5 - 2.0 + 1.0) / 3 - start)
    old = context.history[1]["w"].double() - start
    expected = start + new / torch.linalg.norm(new) * torch.linalg.norm(old)
    assert torch.allclose(erased(context), expected, atol=1e-5)


def test_every_second_round_is_replayed_from_the_first_on() -> None:
    context = three_clients(rounds_before=4)
    erased(context, FedEraser(every=2))
    assert context.trained == 6
    assert FedEraser(every=2).trained_rounds(5) == (1, 3, 5)
    assert FedEraser(every=2).stored_models(5) == {"local": (1, 3, 5), "global": (2, 4)}


def test_a_round_without_a_remaining_client_is_passed_over() -> None:
    context = three_clients(forget=0, absent={2: (1, 2)}, rounds_before=2)
    one_round = three_clients(forget=0, rounds_before=1)
    assert torch.equal(erased(context), erased(one_round))
