"""What tests of pilot share."""

from __future__ import annotations

from typing import Any

from fedmem.contracts.evidence import Bank
from fedmem.contracts.sampler import Pilot
from fedmem.scenario.scenario import Scenario
from tests.execution.sharding_helpers import SMALL
from tests.tiny import tiny

GREEDY: dict[str, Any] = {"sampler": {"kind": "power_of_choice", "size": 2, "candidates": 4}, "roster": "pilot"}


def picked(bank: Bank) -> dict[int, set[tuple[int, int]]]:
    """Run by run, who took part when."""
    found: dict[int, set[tuple[int, int]]] = {}
    for part in bank.participation:
        found.setdefault(part.run, set()).add((part.round, part.client))
    return found


def rounds_of(pilot: Pilot | None) -> list[tuple[int, ...]]:
    assert pilot is not None
    return [one.clients for one in pilot.rounds]


def small(**speed: Any) -> Scenario:
    return tiny(**SMALL | GREEDY | {"rounds": 4, "estimators": [{"kind": "memorisation"}]}, speed=speed)
