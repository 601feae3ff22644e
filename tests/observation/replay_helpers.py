"""A probe for tests that hands its transitions and its context to a function, and the bank of its scenario."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fedmem.contracts.evidence import TrainedBank, Transition
from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.scenario.scenario import Scenario

Look = Callable[[Transition, Any], None]


@dataclass(frozen=True, kw_only=True)
class Looking:
    """Calls `look` with every transition of its level and with the context."""

    densities: ClassVar[bool] = True

    look: Look
    level: str = "local"
    every: int | None = None

    @property
    def levels(self) -> tuple[Any, ...]:
        return (self.level,)

    def observe(self, transitions: Sequence[Transition], context: Any) -> list[Any]:
        for transition in transitions:
            self.look(transition, context)
        return []

    def summarise(self, measurements: Any, seed: int) -> list[Any]:
        return []


def looked_at(scenario: Scenario, look: Look | None, level: str = "local") -> TrainedBank:
    """The bank of a scenario, whose transitions are shown to `look`."""
    scenario.__dict__["probes"] = () if look is None else (Looking(look=look, level=level),)
    return simulate(scenario, build(scenario))
