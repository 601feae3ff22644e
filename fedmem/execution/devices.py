"""Whether a scenario computes on a GPU: `speed.device` and what torch finds decide it.

The executor (`training/executor.py`) then moves models and batches there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmem.errors import RunError

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def wants_gpu(scenario: Scenario) -> bool:
    """Whether tensors live on a GPU: where `speed.device` says so, and for `auto` where torch finds one."""
    import torch

    speed = scenario.speed
    if speed.engine == "flower" or speed.device == "cpu":
        return False  # the clients of Flower's runtime compute on processors
    return speed.device == "cuda" or torch.cuda.is_available()


def device_of(scenario: Scenario) -> str:
    """Where tensors live, `cpu` or `cuda`. Errors: `RunError` if that is a GPU and there is none."""
    import torch

    if wants_gpu(scenario) and not torch.cuda.is_available():
        raise RunError(
            "speed.device is cuda, but torch finds no GPU here; use `device: auto`, which takes one where there is one"
        )
    return "cuda" if wants_gpu(scenario) else "cpu"
