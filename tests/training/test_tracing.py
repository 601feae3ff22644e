"""A traced step gives the bits of the step itself, and what cannot be traced is called as it is."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmem.training.tracing import Traced
from tests.training.tracing_helpers import busy, given


def test_traced_step_gives_the_values_of_the_step() -> None:
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


def test_without_torchs_interpreter_the_tape_is_played_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise RuntimeError("removed")

    monkeypatch.setattr(torch._C, "_create_graph_by_tracing", gone)
    step = Traced(busy)
    for seed in range(3):
        assert torch.equal(step(*given(seed))[1], busy(*given(seed))[1])
    assert step.count == 1


def test_played_by_torchs_interpreter_which_keeps_nothing() -> None:
    """Its global table of functions would grow with every run of a sweep."""
    kept = kept_functions()
    step = Traced(busy)
    step(*given(0))
    step(*given(1))
    (written,) = step._written.values()
    assert written is not None
    assert isinstance(written.play, torch.jit.ScriptFunction)
    assert kept_functions() == kept


def kept_functions() -> list[Any]:
    """What torch's interpreter keeps as long as the process lives."""
    unit: Any = torch.jit._state._python_cu
    return list(unit.get_functions())


def test_two_arguments_that_were_one_tensor_may_differ_later() -> None:
    total = Traced(lambda given: {"y": given["a"] + 2 * given["b"]})
    one = torch.ones(3)
    assert total({"a": one, "b": one})["y"].tolist() == [3.0] * 3
    assert total({"a": one, "b": 5 * one})["y"].tolist() == [11.0] * 3


def test_step_traceable_at_one_size_is_called_at_others() -> None:
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
