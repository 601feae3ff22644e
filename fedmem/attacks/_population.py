"""The examples that attacks with examples of their own are granted."""

from __future__ import annotations

from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Examples
from fedmem.errors import ComponentError


def population_of(target: GradientTarget, kind: str) -> Examples:
    """The adversary's own examples, at least one. Errors: `ComponentError` if it has none."""
    if target.population is None or not len(target.population):
        raise ComponentError(
            "attack.kind",
            f"{kind} guesses from examples of the adversary's own, and there are none. In a scenario raise "
            "`population`, elsewhere use an attack without them, such as grey",
        )
    return target.population
