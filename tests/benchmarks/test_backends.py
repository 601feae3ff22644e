"""Tests of `benchmarks/backends.py`: the calculation for clusters."""

from __future__ import annotations

import csv

import pytest

from benchmarks.backends import COLUMNS, NODES, TABLE, calculated, makespan, table_of

CLUSTER = TABLE.parents[1] / "docs" / "cluster.md"


@pytest.mark.parametrize("shards", [1, 7, 64])
def test_one_worker_trains_all_and_receipt_can_be_the_limit(shards: int) -> None:
    """One worker waits for each receipt, before it begins another shard; many wait for one another."""
    assert makespan(1, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2.5 * shards)
    assert makespan(shards, shards, start=5.0, train=2.0, receive=0.5) == pytest.approx(5 + 2 + 0.5 * shards)


def test_more_workers_are_never_slower() -> None:
    spans = [makespan(workers, 40, start=1.0, train=3.0, receive=0.2) for workers in range(1, 45)]
    assert spans == sorted(spans, reverse=True)
    assert spans[-1] >= 1.0 + 3.0 + 40 * 0.2 - 1e-9


def test_many_workers_are_limited_by_start_and_receipt() -> None:
    """16 s of training on each of 32,000 workers, after 10 s; 32,000 shards of one run at 10 ms each take 320 s.

    The last worker begins 82 s after the first, and so 228 s before the last receipt.
    """
    rows = dict(calculated(start=10.0, each=16.0, one=(1e6, 0.01), full=(16e6, 0.1)))
    assert float(rows["1000 nodes: minutes"]) == pytest.approx((10 + 16 + 320) / 60, abs=0.05)
    assert float(rows["1000 nodes: share of the ideal rate"]) == pytest.approx(16 / 346, abs=0.005)
    assert float(rows["1000 nodes: megabytes received in a second"]) == pytest.approx(32_000 / 346, abs=0.05)
    assert float(rows["1 nodes: share of the ideal rate"]) > 0.97
    assert set(rows) == {f"{nodes} nodes: {name}" for nodes in NODES for name in COLUMNS}


def test_the_page_has_the_committed_figures() -> None:
    with TABLE.open(encoding="utf-8") as file:
        values = {row["quantity"]: row["value"] for row in csv.DictReader(file)}
    page = CLUSTER.read_text(encoding="utf-8")
    assert table_of(values) in page
    for name in ("ray to forks, median", "kilobytes of a shard of 16", "seconds until the first shard"):
        assert values[name] in page
