"""On which device a scenario computes: `speed.device` says so, and `auto` is decided once for a whole command.

The process that the user started decides (`auto_decided_once`): by what torch finds there, or by what the workers of a
backend have. Every shard and every worker then computes on that device. The executor (`training/executor.py`) moves
models and batches there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmem.errors import RunError

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.execution.backends import Backend
    from fedmem.scenario.scenario import Scenario


@dataclass
class _Auto:
    """The decision of a command; None as long as nothing has asked for it."""

    find: Callable[[], str]
    device: str | None = None


_in_force: list[_Auto] = []
"""The decision of each block under way, the latest last; blocks within another share its decision."""


@contextmanager
def auto_decided_once(find: Callable[[], str]) -> Iterator[None]:
    """Let `device: auto` be what `find` gives, which is called once, when the device is asked for.

    In a block within another, the decision of the outer block stays.

    >>> with auto_decided_once(lambda: "cuda"):
    ...     with auto_decided_once(lambda: "cpu"):
    ...         auto_device()
    'cuda'
    """
    _in_force.append(_in_force[-1] if _in_force else _Auto(find))
    try:
        yield
    finally:
        _in_force.pop()


def auto_device() -> str:
    """The device that `auto` stands for: the decision in force, and without one that of this machine."""
    if not _in_force:
        return device_here()
    decision = _in_force[-1]
    if decision.device is None:
        decision.device = decision.find()
    return decision.device


def device_here() -> str:
    """`cuda` where torch finds a GPU of NVIDIA or AMD, otherwise `cpu`.

    Never `mps`: GPUs of Apple have no float64, so that some clients and defences cannot run there.
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of_workers(backend: Backend | None) -> str:
    """`cuda` where workers of a backend have GPUs, otherwise `cpu`; without a backend that of this machine."""
    if backend is None:
        return device_here()
    with backend.connect():
        return "cpu" if backend.card() is None else "cuda"


def chosen_device(scenario: Scenario, federation: Federation | None = None) -> str:
    """The device of a scenario: `cpu`, `cuda` or `mps`; it need not be on this machine.

    The clients of Flower's runtime compute on processors. So do those whose network draws in training, since a GPU
    would draw other numbers; the federation says so.
    """
    if scenario.speed.engine == "flower" or (federation is not None and federation.mode.draws):
        return "cpu"
    device = scenario.speed.device
    return auto_device() if device == "auto" else device


def wants_gpu(scenario: Scenario, federation: Federation | None = None) -> bool:
    """Whether tensors live on a GPU."""
    return chosen_device(scenario, federation) != "cpu"


def device_of(scenario: Scenario, federation: Federation | None = None) -> str:
    """The same device. Errors: `RunError` where torch does not find it on this machine."""
    import torch

    device = chosen_device(scenario, federation)
    if device == "cuda" and not torch.cuda.is_available():
        if scenario.speed.device == "auto":
            raise RunError(
                "speed.device is auto, which is cuda here, since the workers have GPUs. But torch finds no GPU on this "
                "machine, where pilot runs and positive controls are trained. Start the command on a machine with a "
                "GPU, or use `device: cpu`"
            )
        raise RunError(
            "speed.device is cuda, but torch finds no GPU here; use `device: auto`, which takes one where there is one"
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise RunError(
            "speed.device is mps, but torch finds no GPU of Apple here; use `device: cpu`, or `device: auto`, which "
            "takes a GPU of NVIDIA where there is one"
        )
    return device


def card_of(device: str) -> str | None:
    """The name of the card behind a device of this machine; None for `cpu`, and where torch finds none.

    >>> card_of("cpu") is None
    True
    """
    import torch

    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if device == "mps" and torch.backends.mps.is_available():
        import platform

        return f"Apple {platform.machine()}"
    return None
