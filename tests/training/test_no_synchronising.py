"""Nothing waits for a GPU inside a local step: by what is asked of torch, on a processor, with any client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
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


class Reading(TorchFunctionMode):
    """Notes what is copied from a GPU to be read."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.item):
            self._found.append(func.__name__)
        return func(*args, **(kwargs or {}))


def waits(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[tuple[int, list[str]]]:
    """Of each call for some steps: how many they are, and what is waited for in them. Traced as on a GPU."""
    calls: list[tuple[int, list[str]]] = []
    some_steps = Stacked._some_steps

    def watched(self: Stacked, state: Any, work: Any, noise: Any, clock: Any) -> Any:
        found: list[str] = []
        calls.append((len(work[1]), found))
        with Watching(found), Reading(found):
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


ELSEWHERE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sgd": ({"kind": "mlp", "hidden": [8]}, {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "clip": 1.0}),
    "cnn": ({"kind": "small_cnn"}, {"kind": "sgd", "lr": 0.1, "decay": 0.9}),
    "vit": ({"kind": "small_vit"}, {"kind": "sgd", "lr": 0.1}),
    "top_k": ({"kind": "mlp", "hidden": [8]}, {"kind": "top_k", "share": 0.3, "lr": 0.1}),
    "dp, layers": ({"kind": "mlp", "hidden": [8]}, {"kind": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0}),
    "dp, copies": ({"kind": "small_cnn"}, {"kind": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0}),
}
"""Models and clients whose steps are taken on another device than the processor."""


class OnProcessor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations that give tensors on the processor, and those that move tensors.

    Single numbers are left out, which are handed to operations of a GPU as they are.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        for value in outcome if isinstance(outcome, (tuple, list)) else (outcome,):
            if not isinstance(value, Tensor):
                continue
            is_copy = func is aten._to_copy.default and isinstance(args[0], Tensor)
            if (value.ndim and value.device.type == "cpu") or (is_copy and args[0].device != value.device):
                self.found.append(str(func))
        return outcome


def met_on_processor(kind: str) -> list[str]:
    """What two steps make on the processor while all that they are given is on `meta`, which has no memory."""
    model, client = ELSEWHERE[kind]
    scenario = tiny(model=model, client={"batch_size": 8, **client}, dataset={"kind": "digits"})
    federation = build(scenario)
    executor = Stacked(federation.model, scenario.client, federation.store)
    assert (executor._layers is not None) == (kind == "dp, layers")

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device="meta")

    executor._device = torch.device("meta")
    executor._inputs, executor._targets = executor._inputs.to("meta"), executor._targets.to("meta")
    params = {name: zeros(3, *value.shape) for name, value in federation.initial.items()}
    size = sum(value.numel() for value in federation.initial.values())
    others = [zeros(3, 8)] + [zeros(3, size, dtype=torch.float64)] * (executor._private is not None)
    mode = OnProcessor()
    with mode, torch.no_grad():
        state = torch.vmap(executor._client.init)(params, {"round": zeros(3)}, {})
        for _ in range(2):
            batch = executor._batch(zeros(3, 1, dtype=torch.int64), zeros(3, 8, dtype=torch.int64), *others)
            state, loss = executor._one_step._function(state, *batch)
    assert {value.device.type for part in state.values() for value in part.values()} == {"meta"}
    assert loss.device.type == "meta"
    return mode.found


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_all_tensors_of_a_step_are_made_on_the_device(kind: str) -> None:
    assert met_on_processor(kind) == []


def test_a_tensor_that_is_made_on_the_processor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control."""
    batch = Stacked._batch

    def making(self: Stacked, clients: Tensor, rows: Tensor, *others: Tensor) -> Any:
        return batch(self, clients, rows + torch.zeros(8, dtype=torch.int64).to(rows.device), *others)

    monkeypatch.setattr(Stacked, "_batch", making)
    assert met_on_processor("sgd") == ["aten.zeros.default", "aten._to_copy.default"] * 2
