"""Tests of `fedmem/signals/_observed_rounds.py`."""

from __future__ import annotations

from tests.signals.signals_helpers import Bench


def test_a_signal_is_read_every_so_many_rounds_and_at_the_last() -> None:
    bench = Bench([{"kind": "el2n", "every": 3, "levels": ["global"]}], rounds=7, observe={"every": 1})
    read = [number for number in range(8) if bench.reader.read([bench.transition(bench.params(), round_number=number)])]
    assert read == [0, 3, 6, 7]
    assert not bench.reader.read([bench.transition(bench.params(), round_number=3, level="local", client=0)])
