"""Tests of `fedmem/execution/devices.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.errors import RunError
from fedmem.execution.devices import device_of, wants_gpu
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("device", "is_there", "chosen"), [("cpu", True, "cpu"), ("auto", True, "cuda"), ("auto", False, "cpu")]
)
def test_device_follows_the_key_and_what_torch_finds(
    monkeypatch: pytest.MonkeyPatch, device: str, is_there: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    scenario = tiny(speed={"device": device})
    assert (device_of(scenario), wants_gpu(scenario)) == (chosen, chosen == "cuda")


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="torch finds no GPU here"):
        device_of(tiny(speed={"device": "cuda"}))
