"""Tests of `fedmem/training/tape.py`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedmem.training.tape import Tape
from fedmem.training.tracing import Traced
from tests.training.tracing_helpers import busy, given


def test_a_tape_drops_what_does_nothing() -> None:
    def flat(*leaves: Tensor) -> list[Tensor]:
        found, total = busy({"w": leaves[0], "x": leaves[1]}, leaves[2])
        return [*found.values(), total]

    values, mask = given(0)
    tape = Tape.of(flat, [*values.values(), mask])
    names = [str(call.operation) for call in tape.calls]
    assert not any("detach" in name or "view" in name for name in names)
    assert names.count("aten.mm.default") == 1  # the unused product is gone
    assert all(
        torch.equal(*pair) for pair in zip(tape(*values.values(), mask), flat(*values.values(), mask), strict=True)
    )


def test_writing_in_place_is_repeated_in_order() -> None:
    def written(value: Tensor) -> Tensor:
        copy = value.clone()
        copy[0] = 7
        copy += 1
        return copy

    step = Traced(written)
    for number in range(4):
        assert step(torch.full((2,), float(number))).tolist() == [8.0, number + 1]
    assert step.count == 1


def descent(given: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A step that gives back what it was given, further on; `start` stays."""
    away = given["w"] - given["start"]
    slope = (given["w"] @ x).tanh() @ x.T + 0.1 * away
    return {"w": given["w"] - 0.3 * slope, "start": given["start"]}, slope.sum()


def test_in_place_step_gives_equal_values_in_given_memory() -> None:
    step, x = Traced(descent), torch.randn(4, 5)
    state = {"w": torch.randn(4, 4), "start": torch.randn(4, 4)}
    kept = {name: value.clone() for name, value in state.items()}
    assert step.in_place(state, x) is None, "not traced by now"
    state, _ = first, _ = step(state, x)
    over = step.in_place(state, x)
    assert over is not None
    assert step.in_place(state, x) is over
    leaves, place = [value.clone() for value in state.values()], None
    for _ in range(5):
        state, total = step(state, x)
        *leaves, told = over(*leaves, x)
        assert torch.equal(leaves[0], state["w"])
        assert torch.equal(told, total)
        assert place in (None, leaves[0].data_ptr())
        place = leaves[0].data_ptr()
    assert torch.equal(first["start"], kept["start"])
    assert torch.equal(leaves[1], kept["start"])


@pytest.mark.parametrize(
    "function",
    [
        lambda w, v: (w - v, (w - v) * w),  # w is read afterwards
        lambda w, v: ((w - v) * 1.5, w - v),  # another argument's place
        lambda w, v: (w - v, w.T),  # a view of w is given back
        lambda w, v: (w - v, w),
        lambda w, v: (lambda d: (d, d))(w - v),  # given back twice, and so the same memory next time
        lambda w, v: (lambda d: (d, d.T))(w - v),
        lambda w, v: (lambda d: (d, d + 1))(w - v),
        lambda w, v: (w - v.double(), v),  # of another type
        lambda w, v: (w - v[:, None], v),  # of another shape
    ],
)
def test_in_place_tape_keeps_values_that_are_still_needed(function: Any) -> None:
    step, rng = Traced(function), torch.Generator().manual_seed(0)
    given = torch.randn(3, 3, generator=rng), torch.randn(3, 3, generator=rng)
    expected = [value.clone() for value in step(*given)]
    over = step.in_place(*given)
    assert over is not None
    kept = [value.clone() for value in given]
    for one, other in zip(over(*given), expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
