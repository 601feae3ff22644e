"""Tests of `fedmem/training/executor.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.clients.sgd import Sgd
from fedmem.training.executor import MODELS_AT_ONCE, STACK_BYTES, Settings
from fedmem.training.one_by_one import OneByOne
from tests.lab import digits, network


def made(**settings: int) -> OneByOne:
    return OneByOne(network(), Sgd(), digits(), Settings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, MODELS_AT_ONCE), (10, 10), (100, 1), (1000, 1), (0, MODELS_AT_ONCE)]
)
def test_models_at_once_fit_one_forward_pass_or_are_one(rows: int, expected: int) -> None:
    assert made(forward_rows=100).models_at_once(rows) == expected


@pytest.mark.parametrize("count", [0, 1, 100, 250])
def test_batches_are_the_inputs_in_order_within_the_limit(count: int) -> None:
    inputs = digits().inputs[:count]
    parts = list(made(forward_rows=100)._batches(inputs))
    np.testing.assert_array_equal(np.concatenate([np.asarray(part) for part in parts]), inputs)
    assert all(len(part) <= 100 for part in parts)
    assert len(parts) == max(1, -(-count // 100))


def test_stack_bytes_of_zero_are_those_of_the_device() -> None:
    assert made()._stack_bytes == STACK_BYTES
    assert made(stack_bytes=5)._stack_bytes == 5


def test_executor_without_tracing_states_the_reason() -> None:
    executor = made()
    assert (executor.workers, executor.device, executor.waiting_seconds) == (1, "cpu", 0.0)
    assert "one_by_one" in executor.untraced_functions["client.step"]
    assert executor.train([]) == []
