"""What tests of sweep share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmem.errors import RunError
from fedmem.strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Flaky:
    """Averages if a file is there, and fails otherwise."""

    marker: str

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return {}

    def payload(self, state: Arrays, clients: Any) -> Arrays:
        return {}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        if not Path(self.marker).exists():
            raise RunError("no marker")
        return weighted_mean(rnd.sent, share(rnd.weights, rnd.present)), state


Write = Callable[..., Path]


RATES = {"path": "client.lr", "values": [0.1, 0.3]}
