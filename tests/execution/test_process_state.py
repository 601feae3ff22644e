"""What training changes in its process is undone when it ends, whether it succeeds or fails."""

from __future__ import annotations

import ctypes
import gc
import importlib
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from flwr.supercore import telemetry
from flwr.supercore.task_identity import TaskIdentity

import fedmem
from fedmem.errors import FedmemError
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.process_state import process_state
from tests.tiny import tiny

BLOCK = 4 << 20
"""Bytes of a block that glibc maps by itself, unless it is told to hold on to memory."""

FILLING = 16
"""Blocks: more than fit into the holes of a heap."""


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of the C library; the fifth field counts the bytes of mapped blocks."""

    _fields_ = [(f"field_{place}", ctypes.c_size_t) for place in range(10)]


def is_mapped() -> bool | None:
    """Whether the C library maps a large block by itself and so gives it back at once; None where it cannot say."""
    library = ctypes.CDLL(None)
    if sys.platform != "linux" or not hasattr(library, "mallinfo2"):
        return None
    library.mallinfo2.restype = MallInfo
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.malloc_trim(0)  # free memory in the heap would be taken first
    before = library.mallinfo2().field_4
    # holes in the heap are filled first
    blocks = [library.malloc(BLOCK) for _ in range(FILLING)]
    after = library.mallinfo2().field_4
    for block in blocks:
        library.free(block)
    return bool(after - before >= BLOCK)


def state() -> Mapping[str, Any]:
    """All that a program could notice."""
    strategies = [module for name, module in sys.modules.items() if name.startswith(("flwr.", "fedmem.strategies."))]
    return {
        "collector": (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()),
        "record": vars(ArrayRecord)["from_array_dict"],
        "arrays": {module.__name__ for module in strategies if getattr(module, "Array", Array) is not Array},
        "identity": (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id),
        "telemetry": telemetry.FLWR_TELEMETRY_ENABLED,
        "levels": {name: logging.getLogger(name).level for name in ("", "flwr", "fedmem", "absl")},
        "torch": (
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().tolist(),
        ),
        "generators": (random.getstate(), str(np.random.get_state())),  # noqa: NPY002
        "numpy": np.geterr(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.unraisablehook),
        "folder": Path.cwd(),
        "mapped": is_mapped(),
    }


@pytest.fixture(autouse=True)
def _as_in_a_program(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads of torch, and Flower's defaults, so that other values are noticed."""
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    monkeypatch.setattr(telemetry, "FLWR_TELEMETRY_ENABLED", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with process_state(2):  # what glibc adjusted before is set to its defaults
        pass
    for name in ("flwr.serverapp.strategy.fedadam", "fedmem.strategies.fedavg", "fedmem.clients.sgd"):
        importlib.import_module(name)  # importing a module is no change that could be undone
    yield
    torch.set_num_threads(threads)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (value, after[name]) for name, value in before.items() if value != after[name]}


FAILS = {"client": {"kind": "tests.bad_parts:BadClient", "how": "raise"}}
MESSAGES = {"strategy": {"kind": "flwr.serverapp.strategy:FedAdam"}}


def test_state_inside_differs() -> None:
    """Otherwise the tests below would compare nothing."""
    before = state()
    with process_state(1):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        inside = changed(before, state())
    expected = {"collector", "record", "arrays", "identity", "telemetry", "levels", "torch", "generators"}
    expected |= set() if before["mapped"] is None else {"mapped"}
    assert set(inside) == expected
    assert not changed(before, state())


@pytest.mark.parametrize("changes", [{}, MESSAGES], ids=["rule", "messages"])
def test_run_leaves_the_process_as_it_was(changes: dict[str, Any], tmp_path: Path) -> None:
    scenario = tiny(rounds=2, **changes)
    before = state()
    fedmem.run(scenario, out=tmp_path)
    assert not changed(before, state())


def test_failed_run_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    scenario = tiny(rounds=2, **FAILS)
    before = state()
    with pytest.raises(FedmemError):
        fedmem.run(scenario, out=tmp_path)
    assert not changed(before, state())


def test_scenarios_trained_together_leave_the_process_as_it_was(tmp_path: Path) -> None:
    """They end one after the other, in another order than they began, and one fails."""
    scenarios = [tiny(rounds=rounds, name=f"tiny{rounds}", **MESSAGES) for rounds in (3, 2)]
    before = state()
    outcomes = run_all([*scenarios, tiny(rounds=2, **FAILS)], out=tmp_path, jobs=1)
    assert [outcome.error is None for outcome in outcomes] == [True, True, False]
    assert not changed(before, state())


def test_overlapping_blocks_are_undone_by_the_last() -> None:
    before = state()
    first, second = process_state(1), process_state(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.get_num_threads() == 1
    second.__exit__(None, None, None)
    assert not changed(before, state())
