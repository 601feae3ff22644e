"""What a scenario leaves open is decided by tables."""

from __future__ import annotations

import os

import pytest

from fedmem import speed
from fedmem.speed import is_stacked, server_of, workers_of
from tests.tiny import tiny


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setattr(speed, "can_fork", lambda: True)
    asked = {
        (): 6,
        (("workers", 4),): 4,
        (("threads", 4),): 1,
        (("threads", 3),): 2,
        (("threads", 8),): 1,
        (("workers", 9), ("threads", 8)): 9,
        (("device", "cuda"),): 1,
        (("engine", "flower"),): 1,
    }
    for settings, workers in asked.items():
        assert workers_of(tiny(speed=dict(settings))) == workers, settings
    monkeypatch.setattr(speed, "can_fork", lambda: False)
    assert workers_of(tiny(speed={"workers": 4})) == 1


def test_what_is_stacked() -> None:
    cnn = {"kind": "small_cnn"}
    assert is_stacked(tiny())
    assert not is_stacked(tiny(speed={"executor": "one_by_one"}))
    assert not is_stacked(tiny(model=cnn))
    assert not is_stacked(tiny(speed={"engine": "flower"}))


def test_the_way_to_the_server() -> None:
    foreign = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    assert server_of(tiny()) == "rule"
    assert server_of(tiny(speed={"server": "messages"})) == "messages"
    assert server_of(tiny(strategy=foreign, cohort="strategy")) == "messages"
    assert server_of(tiny(cohort="strategy")) == "messages"
    assert server_of(tiny(speed={"engine": "flower"})) == "messages"
