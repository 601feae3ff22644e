"""Tests of `fedmem/execution/devices.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fedmem.errors import RunError
from fedmem.execution import devices
from fedmem.execution.devices import (
    auto_decided_once,
    auto_device,
    chosen_device,
    device_of,
    device_of_workers,
    wants_gpu,
)
from fedmem.execution.remote_shards import setup_of
from fedmem.execution.run import run
from fedmem.execution.shard_store import Shards
from fedmem.execution.sharding import made_with, made_without_data
from fedmem.federation.build import build
from tests.execution.backends.backend_helpers import Here
from tests.tiny import tiny

CARD = "NVIDIA H100"


def has_gpu(monkeypatch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False) -> None:
    """What torch seems to find."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: CARD)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("device", "cuda", "mps", "chosen"),
    [
        ("cpu", True, True, "cpu"),
        ("auto", True, False, "cuda"),
        ("auto", False, False, "cpu"),
        ("auto", False, True, "cpu"),
        ("mps", True, True, "mps"),
    ],
)
def test_device_follows_the_key_and_what_torch_finds(
    monkeypatch: pytest.MonkeyPatch, device: str, cuda: bool, mps: bool, chosen: str
) -> None:
    has_gpu(monkeypatch, cuda=cuda, mps=mps)
    scenario = tiny(speed={"device": device})
    assert (device_of(scenario), wants_gpu(scenario)) == (chosen, chosen != "cpu")
    assert device_of(scenario) == chosen_device(scenario)


@pytest.mark.parametrize(("device", "text"), [("cuda", "torch finds no GPU here"), ("mps", "no GPU of Apple here")])
def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, device: str, text: str) -> None:
    has_gpu(monkeypatch)
    with pytest.raises(RunError, match=text):
        device_of(tiny(speed={"device": device}))


def test_auto_is_decided_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, cuda=True)
    workers = Here(CARD)
    with auto_decided_once(lambda: device_of_workers(workers)):
        assert chosen_device(tiny()) == "cpu"
        assert workers.asked == 0
        with auto_decided_once(lambda: "cpu"):
            assert chosen_device(tiny(speed={"device": "auto"})) == "cuda"
        has_gpu(monkeypatch)
        assert auto_device() == "cuda", "what this machine has is not asked again"
        assert workers.asked == 1
    assert auto_device() == "cpu"


def test_workers_decide_and_not_the_machine_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, cuda=True)
    assert device_of_workers(Here()) == "cpu"
    has_gpu(monkeypatch)
    assert device_of_workers(Here(CARD)) == "cuda"
    assert device_of_workers(None) == "cpu"
    scenario = tiny(speed={"device": "auto"})
    with (
        auto_decided_once(lambda: device_of_workers(Here(CARD))),
        pytest.raises(RunError, match=r"the workers have GPUs.*on this machine"),
    ):
        device_of(scenario)


def test_workers_are_sent_the_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch)
    scenario = tiny(speed={"device": "auto"})
    federation = build(scenario)
    shards = Shards(tmp_path, None)
    with auto_decided_once(lambda: "cuda"):
        setup = setup_of(scenario, federation, shards, watch=True, pilot=None)
    assert setup.scenario["speed"]["device"] == "cuda"


def test_a_worker_with_another_card_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch)
    monkeypatch.setattr("fedmem.execution.run.backend_for", lambda *_: Here(CARD))
    # the worker is this machine, which has none
    with pytest.raises(RunError, match=r"differ: card: none there, NVIDIA H100 here"):
        run(tiny(speed={"device": "auto"}), out=tmp_path)


def test_shards_are_made_with_a_device_and_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(card: str | None = None, **speed: Any) -> dict[str, str]:
        return dict(made_without_data(tiny(speed=speed), card=card))

    has_gpu(monkeypatch)
    assert made(device="auto") == made(device="cpu")
    assert "card" not in made()
    assert made(device="cuda", card="A100") != made(device="cuda", card=CARD)
    assert made(device="cuda", card=CARD)["settings of speed"] != made()["settings of speed"]
    has_gpu(monkeypatch, cuda=True)
    assert made(device="auto") == made(device="cuda") == made(device="cuda", card=CARD)


def test_networks_that_draw_stay_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, cuda=True)
    scenario = tiny(model={"kind": "small_cnn"}, dataset={"kind": "digits"}, speed={"device": "auto"})
    federation = build(scenario)
    assert devices.chosen_device(scenario, federation) == "cuda"
    object.__setattr__(federation.mode, "draws", True)
    assert (device_of(scenario, federation), wants_gpu(scenario, federation)) == ("cpu", False)
    assert "card" not in made_with(scenario, federation)


@pytest.mark.parametrize("required", ["", "1"])
def test_tests_on_a_gpu_are_skipped_or_fail_without_one(required: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import pytest_runtest_setup

    class Item:
        marker: object = "gpu"

        def get_closest_marker(self, name: str) -> object:
            return self.marker if name == "gpu" else None

    has_gpu(monkeypatch)
    monkeypatch.setenv("FEDMEM_REQUIRE_GPU", required)
    item: Any = Item()
    with pytest.raises(pytest.fail.Exception if required else pytest.skip.Exception, match="no GPU"):
        pytest_runtest_setup(item)
    has_gpu(monkeypatch, cuda=True)
    pytest_runtest_setup(item)
