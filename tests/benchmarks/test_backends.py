"""Tests of `benchmarks/backends.py`: the calculation for clusters, and its committed table."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks.backends import NODES, TABLE, makespan


@pytest.mark.parametrize("shards", [1, 7, 64])
def test_one_worker_trains_all_and_receipt_can_be_the_limit(shards: int) -> None:
    """With one worker only the last receipt is waited for; with one for each shard, all are, one after the other."""
    assert makespan(1, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2 * shards + 0.5)
    assert makespan(shards, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2 + 0.5 * shards)


def test_more_workers_are_never_slower() -> None:
    spans = [makespan(workers, 40, start=1.0, train=3.0, receive=0.2) for workers in range(1, 45)]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] >= 1.0 + 3.0 + 40 * 0.2 - 1e-9


def test_the_committed_table_is_whole_and_possible() -> None:
    values = pd.read_csv(TABLE, index_col="quantity").value
    assert values["ray to forks, least"] <= values["ray to forks, median"] <= values["ray to forks, most"]
    shares = [values[f"{nodes} nodes: share of the ideal rate"] for nodes in NODES]
    assert all(0 < share <= 1 for share in shares)
    assert shares == sorted(shares, reverse=True)
