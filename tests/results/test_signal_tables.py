"""Tests of `fedmem/results/signal_tables.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import SignalEvidence
from fedmem.results.signal_tables import read_all_signals, read_signals, signal_counts, write_signals


def block(name: str, round_number: int, values: FloatArray | NDArray[np.float32]) -> SignalEvidence:
    count = len(values)
    return SignalEvidence(
        round=round_number,
        level="local",
        name=name,
        run=np.arange(count, dtype=np.int32),
        client=np.arange(count, dtype=np.int32) + 5,
        values=values,
    )


def test_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4))
    values[1, 2], values[2, 0] = np.nan, np.inf
    blocks = [block("el2n", 1, values), block("entropy", 1, -values[:2]), block("el2n", 2, values[:1])]
    write_signals(tmp_path, blocks)
    found = list(read_signals(tmp_path / "signals.parquet"))
    assert len(found) == len(blocks)
    for one, other in zip(found, blocks, strict=True):
        assert (one.round, one.level, one.name) == (other.round, other.level, other.name)
        for name in ("run", "client", "values"):
            first, second = getattr(one, name), getattr(other, name)
            assert first.dtype == second.dtype
            assert first.tobytes() == second.tobytes()


def test_values_of_other_sets_have_a_file_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = [rng.standard_normal((count, 4)).astype(np.float32) for count in (3, 2, 1)]
    values[0][1, 2] = np.nan
    on_test = [
        replace(block(f"logit.{k}", k // 2, array), set="test", rows=np.array([2, 5, 6, 90]))
        for k, array in enumerate(values)
    ]
    on_audit = block("el2n", 1, rng.standard_normal((3, 4)))
    write_signals(tmp_path, [*on_test[:1], on_audit, *on_test[1:]])
    assert [one.name for one in read_signals(tmp_path / "signals.parquet")] == ["el2n"]
    found = list(read_all_signals(tmp_path))
    assert [one.set for one in found] == ["audit", "test", "test", "test"]
    for one, other in zip(found[1:], on_test, strict=True):
        assert (one.round, one.level, one.name, one.set) == (other.round, other.level, other.name, other.set)
        for name in ("run", "client", "values", "rows"):
            first, second = getattr(one, name), getattr(other, name)
            assert first.dtype == second.dtype
            assert first.tobytes() == second.tobytes()
    assert signal_counts(found) == {"signals": 12, "set_signals": 24}


def test_no_file_without_signals(tmp_path: Path) -> None:
    write_signals(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert list(read_signals(tmp_path / "signals.parquet")) == []
