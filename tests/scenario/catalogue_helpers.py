"""What tests of catalogue share."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario import catalogue

THEIRS = '''
from dataclasses import dataclass
from typing import Annotated
import numpy as np
from annotated_types import Gt
from fedmem.contracts.attack import MembershipAttack

@dataclass(frozen=True, kw_only=True)
class Halves:
    """Two halves."""
    share: Annotated[float, Gt(0)] = 0.5
    def assign(self, data, rows, num_clients, rng):
        return tuple(np.array_split(rows, num_clients))

@dataclass(frozen=True, kw_only=True)
class Picky:
    """Refuses odd sizes."""
    size: int = 2
    def __post_init__(self):
        if self.size % 2:
            raise ValueError(f"size {self.size} is odd; use {self.size + 1}")
    def cohort(self, round, history, rng): ...

@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Attacks in many ways."""
    attacks: tuple[MembershipAttack, ...]
    fallback: MembershipAttack | None = None
    def estimate(self, view): ...
    def tests(self, view): ...

class Plain:
    """No dataclass."""
    def assign(self, data, rows, num_clients, rng): ...

class Mine:
    """A strategy that knows nothing of fedmem."""
    def __init__(self, mu: float, **kwargs: float) -> None:
        self.mu, self.kwargs = mu, kwargs
    def start(self, **others): ...

class Stuck:
    """Has no start."""

class Refuses:
    """Cannot be made."""
    def __init__(self) -> None:
        raise RuntimeError("out of luck")
    def start(self, **others): ...

@dataclass(frozen=True, kw_only=True)
class Lost:
    """An annotation that cannot be resolved."""
    size: "Nowhere" = 1
    def cohort(self, round, history, rng): ...
'''


def problems(family: str, mapping: Any) -> dict[str, str]:
    with pytest.raises(ScenarioError) as caught:
        catalogue.build(family, mapping)
    return {problem.path: problem.message for problem in caught.value.problems}
