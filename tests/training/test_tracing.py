"""A traced step gives the bits of the step itself, and what cannot be traced is called as it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmem.training.tape import Tape
from fedmem.training.tracing import Traced


def busy(given: dict[str, Tensor], mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Views, a factor of one, an unused product, a constant and a reduction."""
    weight = given["w"].detach().view(given["w"].shape) * 1
    (weight @ weight).sum()
    shifted = (weight @ given["x"].T) + torch.arange(3.0)
    return {"w": weight - 0.1 * shifted.relu(), "x": given["x"]}, (shifted * mask).sum()


def given(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(3, 3, generator=rng), "x": torch.randn(3, 3, generator=rng)}, torch.ones(3)


def test_a_traced_step_gives_the_values_of_the_step_and_always_the_same_bits() -> None:
    step = Traced(busy)
    for seed in range(6):
        found, expected = step(*given(seed)), busy(*given(seed))
        assert found[0].keys() == expected[0].keys()
        for name, value in expected[0].items():
            torch.testing.assert_close(found[0][name], value, rtol=1e-6, atol=1e-7)
            assert torch.equal(step(*given(seed))[0][name], found[0][name])
        assert torch.equal(found[1], expected[1])
        assert step.count == 1
        assert step.reason is None


def test_each_set_of_shapes_is_traced_on_its_own() -> None:
    double = Traced(lambda value: value * 2)
    for size in (1, 2, 1, 2, 1):
        assert double(torch.ones(size)).tolist() == [2.0] * size
    assert double.count == 2
    assert double(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


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


def test_a_function_that_changes_is_not_traced() -> None:
    """What it says depends on more than its arguments, so that the tape and the next call disagree."""
    calls: list[int] = []

    def moody(value: Tensor) -> Tensor:
        calls.append(1)
        return value + len(calls)

    step = Traced(moody)
    assert float(step(torch.zeros(()))) == len(calls)
    assert step.count == 0
    assert float(step(torch.zeros(()))) == len(calls)
    assert step.reason == "called again, its operations give other values than the function"


def test_a_function_that_reads_a_value_is_not_traced() -> None:
    """A branch on a number would be written down as it happened to be taken."""
    step = Traced(lambda value: value * 2 if float(value.sum()) > 0 else value)
    for sign in (1.0, 1.0, 1.0, -1.0):
        assert step(torch.full((2,), sign)).tolist() == ([2.0, 2.0] if sign > 0 else [-1.0, -1.0])
    assert step.reason is not None
    assert "\n" not in step.reason


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


def test_without_torchs_interpreter_the_tape_is_played_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise RuntimeError("removed")

    monkeypatch.setattr(torch.jit, "trace", gone)
    step = Traced(busy)
    for seed in range(3):
        assert torch.equal(step(*given(seed))[1], busy(*given(seed))[1])
    assert step.count == 1


def test_two_arguments_that_were_one_tensor_may_differ_later() -> None:
    total = Traced(lambda given: {"y": given["a"] + 2 * given["b"]})
    one = torch.ones(3)
    assert total({"a": one, "b": one})["y"].tolist() == [3.0] * 3
    assert total({"a": one, "b": 5 * one})["y"].tolist() == [11.0] * 3


def descent(given: dict[str, Tensor], x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """A step that gives back what it was given, further on; `start` stays."""
    away = given["w"] - given["start"]
    slope = (given["w"] @ x).tanh() @ x.T + 0.1 * away
    return {"w": given["w"] - 0.3 * slope, "start": given["start"]}, slope.sum()


def test_played_in_place_it_gives_the_same_bits_in_the_memory_that_it_was_given() -> None:
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
def test_what_is_still_needed_is_not_overwritten(function: Any) -> None:
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


def test_what_can_be_traced_at_one_size_alone_is_called_at_others() -> None:
    step = Traced(lambda value: value * 2 if len(value) < 3 or float(value.sum()) > 0 else value)
    assert step(torch.ones(2)).tolist() == [2.0, 2.0]
    assert step(-torch.ones(4)).tolist() == [-1.0] * 4
    assert step.count == 1


def test_no_compiler_is_loaded() -> None:
    """Nor what it computes shapes with: they take longer to import than most scenarios take to train."""
    import subprocess

    code = (
        "import sys; from tests.tiny import tiny; from fedmem.execution.bank import simulate;"
        "from fedmem.federation.build import build;"
        "s = tiny(rounds=12, speed={'executor': 'stacked'}); simulate(s, build(s));"
        "print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
