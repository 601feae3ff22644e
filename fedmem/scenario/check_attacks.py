"""Checks of membership attacks: what they read must be observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.estimator import Estimator
from fedmem.contracts.families import kind_of, nested_components
from fedmem.errors import Problem

if TYPE_CHECKING:
    from fedmem.scenario.observing import Observe


def _initial_models(estimators: Sequence[Estimator], observe: Observe) -> Iterator[Problem]:
    """A membership attack that reads the initial model needs the aggregate, whose round 0 it is."""
    for position, estimator in enumerate(estimators if "global" not in observe.levels else ()):
        for path, attack in nested_components(estimator, f"estimators[{position}]"):
            if isinstance(attack, MembershipAttack) and "initial" in attack_declaration(attack).reads:
                yield Problem(
                    path="observe.levels",
                    message=f"{kind_of(attack)} ({path}) reads the initial model, the aggregate of round 0, which is "
                    "not observed; add global, or leave the attack out",
                )
