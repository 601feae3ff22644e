"""Tests of `benchmarks/backends.py`: the calculation for clusters."""

from __future__ import annotations

import pytest

from benchmarks.backends import makespan


@pytest.mark.parametrize("shards", [1, 7, 64])
def test_one_worker_trains_all_and_receipt_can_be_the_limit(shards: int) -> None:
    """With one worker only the last receipt is waited for; with one for each shard, all are, one after the other."""
    assert makespan(1, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2 * shards + 0.5)
    assert makespan(shards, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2 + 0.5 * shards)


def test_more_workers_are_never_slower() -> None:
    spans = [makespan(workers, 40, start=1.0, train=3.0, receive=0.2) for workers in range(1, 45)]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] >= 1.0 + 3.0 + 40 * 0.2 - 1e-9
