"""Clients shared out among worker processes: the same bits, and no death goes unnoticed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from fedmem.errors import RunError
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import LocalWork, TrainedWork, Work
from fedmem.training.worker_pool import ROOM, PooledExecutor
from tests.narrowing import present
from tests.tiny import tiny
from tests.toys import Secretive


def work_of(scenario: Scenario, federation: Any, clients: list[int]) -> Work:
    runs = np.array([0, 1] * len(clients))
    models = {name: torch.stack([value, value + 0.1]) for name, value in federation.initial.items()}
    plan = LocalWork(federation, scenario.client, scenario.seed)
    return plan.of(1, runs, np.repeat(clients, 2), models, runs)


@pytest.fixture
def scenario() -> Scenario:
    return tiny(partition={"kind": "dirichlet", "alpha": 0.5, "min_rows": 2})


def crew(federation: Any, client: Any, workers: int = 2) -> PooledExecutor:
    return PooledExecutor(federation.model, client, federation.store, workers=workers)


def equal(one: TrainedWork, other: TrainedWork) -> bool:
    parts = [(one.sent, other.sent), (one.kept, other.kept), (one.memory, other.memory), (one.report, other.report)]
    return np.array_equal(one.loss, other.loss, equal_nan=True) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in parts
    )


@pytest.mark.parametrize(
    "client", [Sgd(lr=0.2, momentum=0.9, batch_size=8), Secretive()], ids=lambda c: type(c).__name__
)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_bits_of_one_process(scenario: Scenario, client: Any, workers: int) -> None:
    federation = build(scenario)
    work = work_of(scenario, federation, [0, 1, 2, 3, 4])
    plain = OneByOne(federation.model, client, federation.store).train_all(work)
    spread = crew(federation, client, workers)
    try:
        for _ in range(2):
            done = spread.train_all(work)
            assert equal(done, plain)
            assert (done.kept is done.sent) == (plain.kept is plain.sent)
    finally:
        spread.close()


def test_evaluation_is_shared_out_as_well(scenario: Scenario) -> None:
    federation = build(scenario)
    models = [{name: value * factor for name, value in federation.initial.items()} for factor in (0.5, 1, 2)]
    inputs = federation.test.inputs
    spread = crew(federation, Sgd())
    try:
        plain = OneByOne(federation.model, Sgd(), federation.store).logits(models, inputs)
        assert np.array_equal(spread.logits(models, inputs), plain)
        # more models than the memory was made for
        assert np.array_equal(spread.logits(models * 9, inputs), np.concatenate([plain] * 9))
    finally:
        spread.close()


class Large(Sgd):
    """Reports more than there is room for in shared memory."""

    def final(self, state: Any, before: Any) -> Any:
        from dataclasses import replace

        outcome = super().final(state, before)
        return replace(outcome, memory={"large": torch.arange(ROOM, dtype=torch.float32)})


def test_work_too_large_for_shared_memory_is_sent_otherwise(scenario: Scenario) -> None:
    federation = build(scenario)
    work = work_of(scenario, federation, [0, 1])
    spread = crew(federation, Large())
    try:
        done = spread.train_all(work)
        assert equal(done, OneByOne(federation.model, Large(), federation.store).train_all(work))
    finally:
        spread.close()


class Dying(Sgd):
    """Ends as it is told."""

    def init(self, before: Any, offer: Any, memory: Any) -> Any:
        if offer["fate"] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if offer["fate"] == 2:
            os._exit(7)
        if offer["fate"] == 3:
            raise ValueError("out of battery")
        return super().init(before, offer, memory)


def test_client_that_dies_with_its_worker_fails_alone(scenario: Scenario) -> None:
    from dataclasses import replace

    federation = build(scenario)
    work = work_of(scenario, federation, [0, 1, 2, 3])
    fates = torch.tensor([0, 0, 1, 0, 2, 0, 3, 0])
    work = replace(work, payload={**work.payload, "fate": fates})
    spread = crew(federation, Dying(lr=0.2))
    try:
        for _ in range(2):
            done, failed = spread.attempt_all(work)
            (line,) = re.findall(r"test_worker_pool\.py:(\d+)", failed[6])
            assert failed == {
                2: "its worker process was killed by SIGKILL; was there enough memory?",
                4: "its worker process ended with exit code 7",
                6: f"ValueError: out of battery (in init of client {__name__}:Dying, "
                f"tests/training/test_worker_pool.py:{line})",
            }
            assert done is not None
            assert done.work.client.tolist() == [0, 0, 1, 2, 3]
        good = work.take([0, 1, 3, 5, 7])
        assert equal(present(done), OneByOne(federation.model, Dying(lr=0.2), federation.store).train_all(good))
        with pytest.raises(RunError, match="killed by SIGKILL"):
            spread.train_all(work)
    finally:
        spread.close()


@pytest.fixture
def alive() -> Callable[[], int]:
    """How many more children this process has than before."""

    def children() -> int:
        listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        return len(listed.read_text().split()) if listed.exists() else 0

    before = children()
    return lambda: children() - before


def test_worker_count_of_the_scenario_changes_no_result(alive: Any) -> None:
    one, two = (tiny(speed={"executor": "one_by_one", "workers": count}, runs=2) for count in (1, 2))
    plain, spread = (simulate(scenario, build(scenario)) for scenario in (one, two))
    assert alive() == 0
    assert one.id == two.id
    for a, b in zip(plain.params, spread.params, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    for e, f in zip(plain.bank.evidence, spread.bank.evidence, strict=True):
        assert np.array_equal(e.margin, f.margin)
    assert (plain.workers, spread.workers) == (1, 2)


def test_workers_do_not_outlive_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import time; from tests.training.test_worker_pool import *\n"
        "scenario = tiny(); federation = build(scenario); spread = crew(federation, Sgd(), 3)\n"
        "spread.train_all(work_of(scenario, federation, [0, 1, 2]))\n"
        "print(*[worker.process.pid for worker in spread._pool], flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        process.kill()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() and _running(pid) for pid in pids):
            return
        time.sleep(0.1)
    raise AssertionError("workers are still there")


def _running(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"
