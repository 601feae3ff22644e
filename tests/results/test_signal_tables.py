"""Tests of `fedmem/results/signal_tables.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import SignalEvidence
from fedmem.results.signal_tables import read_signals, write_signals


def block(name: str, round_number: int, values: FloatArray) -> SignalEvidence:
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


def test_no_file_without_signals(tmp_path: Path) -> None:
    write_signals(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
    assert list(read_signals(tmp_path / "signals.parquet")) == []
