"""What tests of memory plan share."""

from __future__ import annotations

from typing import Any

from fedmem.execution.memory_plan import MemoryLimits, MemoryNeeds, needs_of, phases
from fedmem.federation import build as federations
from tests.tiny import tiny

NEEDS = MemoryNeeds(
    runs=32,
    data=10**8,
    source=10**8,
    drafts=0,
    model=4 * 10**6,
    row=4000,
    saved=10**5,
    wide=10**5,
    classes=10,
    cohort=20,
    examples=500,
    batch=10,
    evidence=10**6,
    estimates=10**7,
    stackable=True,
    watched=True,
    server="messages",
)


ROOM = MemoryLimits(stack_bytes=64 << 20, forward_rows=1 << 16, shard=16, workers=2)


def training(needs: MemoryNeeds, room: MemoryLimits) -> int:
    return sum(phases(needs, room)["training"].values())


def held(**changes: Any) -> Any:
    scenario = tiny(**{"injections": [], **changes})
    federation = federations.build(scenario)
    return needs_of(scenario, federation, 3)
