"""What a scenario leaves open is decided by tables."""

from __future__ import annotations

import os

import pytest
import torch

from fedmem import processes
from fedmem.execution import auto as speed
from fedmem.execution.auto import server_of, workers_of
from fedmem.execution.devices import device_of, wants_gpu
from fedmem.execution.grouping import divide_into_banks
from tests.tiny import tiny


def test_worker_count_follows_cores_threads_and_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setattr(speed, "can_start", lambda: True)
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
    monkeypatch.setattr(processes, "can_fork", lambda: False)
    assert workers_of(tiny(speed={"workers": 4})) == 4, "processes are started instead"
    monkeypatch.setattr(speed, "can_start", lambda: False)
    assert workers_of(tiny(speed={"workers": 4})) == 1


@pytest.mark.parametrize(("there", "workers", "device"), [(False, 6, "cpu"), (True, 1, "cuda")])
def test_auto_keeps_all_processes_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, there: bool, workers: int, device: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setattr(speed, "can_start", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    auto = tiny(speed={"device": "auto"})
    assert (workers_of(auto), device_of(auto), wants_gpu(auto)) == (workers, device, there)
    # what trains many scenarios together asks the same
    alike = {0: auto, 1: tiny(seed=5, speed={"device": "auto"})}
    assert divide_into_banks(alike, 1) == ([(0, 1)], [])
    assert device_of(tiny(speed={"device": "auto", "engine": "flower"})) == "cpu"


def test_the_way_to_the_server() -> None:
    foreign = {"kind": "flwr.serverapp.strategy:FedAvg", "fraction_train": 0.5}
    assert server_of(tiny()) == "rule"
    assert server_of(tiny(speed={"server": "messages"})) == "messages"
    assert server_of(tiny(strategy=foreign, cohort_by="strategy")) == "messages"
    assert server_of(tiny(cohort_by="strategy")) == "messages"
    assert server_of(tiny(speed={"engine": "flower"})) == "messages"
