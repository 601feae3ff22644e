"""Nothing waits for a GPU inside a local step: by what is asked of torch, on a processor, with any client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.training import tracing
from fedmem.training.stacked import Stacked
from fedmem.training.tape import _play_in_place
from tests.tiny import tiny

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
}
"""Operations whose outcome, or its shape, has to be known before the next can be asked for."""


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what a GPU would be waited for."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        picks = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
        by_truth = picks and any(isinstance(one, Tensor) and one.dtype == torch.bool for one in args[1])
        if func in WAITING or by_truth:
            self._found.append(str(func))
        return func(*args, **(kwargs or {}))


def waits(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[tuple[int, list[str]]]:
    """Of each call for some steps: how many they are, and what is waited for in them. Traced as on a GPU."""
    calls: list[tuple[int, list[str]]] = []
    some_steps = Stacked._some_steps

    def watched(self: Stacked, state: Any, work: Any, noise: Any, clock: Any) -> Any:
        found: list[str] = []
        calls.append((len(work[1]), found))
        with Watching(found):
            return some_steps(self, state, work, noise, clock)

    def once(function: Callable[..., Any]) -> Callable[..., Any]:
        """The same, where a comparison that is made once for each shape of a batch is not noted."""

        def unwatched(*arguments: Any) -> Any:
            with torch.utils._python_dispatch._disable_current_modes():
                return function(*arguments)

        return unwatched

    monkeypatch.setattr(Stacked, "_some_steps", watched)
    monkeypatch.setattr(tracing, "_play_in_place", once(_play_in_place))
    monkeypatch.setattr(tracing.Traced, "_is_sound", once(tracing.Traced._is_sound))
    # on a GPU the tape is played by itself, and not by torch's interpreter
    as_on_a_gpu: Callable[..., Any] = lambda tape, leaves: tape  # noqa: E731
    monkeypatch.setattr(tracing, "_compile", as_on_a_gpu)
    scenario = tiny(**{"rounds": 3, "speed": {"executor": "stacked", "workers": 1}, **changes})
    simulate(scenario, build(scenario))
    return calls


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"client": {"kind": "sgd", "lr": 0.1, "epochs": 3, "batch_size": 8, "momentum": 0.9, "clip": 1.0}},
        {"client": {"kind": "dp_sgd", "lr": 0.1, "clip": 1.0, "noise_multiplier": 1.0, "batch_size": 8}},
        {"client": {"kind": "top_k", "share": 0.3, "lr": 0.1, "batch_size": 8}},
        {"strategy": {"kind": "scaffold"}},
    ],
)
def test_no_step_waits(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = waits(monkeypatch, **changes)
    assert sum(steps for steps, _ in calls) > 5, "some steps are made"
    assert [found for _, found in calls if found] == []


def test_a_step_that_reads_a_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: batches that are looked at."""
    batch = Stacked._batch

    def looking(self: Stacked, clients: Tensor, rows: Tensor, *others: Tensor) -> Any:
        assert float(rows.sum()) >= 0
        return batch(self, clients, rows, *others)

    monkeypatch.setattr(Stacked, "_batch", looking)
    for steps, found in waits(monkeypatch):
        assert found == ["aten._local_scalar_dense.default"] * steps
