"""What tests of shard store share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedmem.contracts.evidence import Dropped, TrainedBank
from fedmem.execution.shard_lock import claim
from fedmem.execution.shard_store import Shards

MADE = {"scenario": "abc", "version of torch": "2"}


FIRST, SECOND = range(2), range(2, 4)


LOST = Dropped(known={(1, 3): "ValueError: so (in run 7)"}, found={(2, 0): "KeyError: 'ß'"})


PROBES = [
    {"kind": "utility"},
    {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}, "victims": 1, "rounds": [2]},
]


def kept(shards: Shards, done: TrainedBank, **changes: str) -> Shards:
    """The same shards, opened, with two of them written."""
    shards.open({**MADE, **changes})
    shards.write(FIRST, done, LOST, params=True)
    shards.write(SECOND, done, Dropped(known={}, found={}), params=False)
    return shards


@contextmanager
def leaving(folder: Path) -> Iterator[Shards]:
    """Holds them until somebody presses Ctrl-C at the end of the block."""
    with suppress(KeyboardInterrupt), claim(folder) as shards:
        yield shards
        raise KeyboardInterrupt


def interrupted(folder: Path, done: TrainedBank, **changes: str) -> None:
    """What a process that was interrupted leaves behind."""
    with leaving(folder) as shards:
        kept(shards, done, **changes).store_failures(LOST.known)
