"""Injections that are made against the examples of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Space
from fedmem.contracts.injection import AimedInjection, Injection, injection_declaration
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def place_aimed_at(injections: Sequence[Injection], i: int) -> int | None:
    """The position of the injection that the one at position i aims at; None where it aims at none.

    >>> from fedmem.injections.privacy_poison import PrivacyPoison
    >>> from fedmem.injections.typical import Typical
    >>> place_aimed_at((Typical(), PrivacyPoison(aims_at="typical")), 1)
    0
    """
    name = injection_declaration(injections[i]).aims_at
    if name is None:
        return None
    return next(place for place, injection in enumerate(injections[:i]) if injection.name == name)


def target_plan(scenario: Scenario, i: int, earlier: Sequence[InjectionPlan | None]) -> InjectionPlan | None:
    """The plan that the injection at position i aims at; None where it aims at none.

    Errors: `ComponentError` where that plan is not known in a trial, which takes rows that clients hold.
    """
    place = place_aimed_at(scenario.injections, i)
    if place is None:
        return None
    targets = earlier[place]
    if targets is None:
        raise ComponentError(
            "injections.aims_at",
            f"{scenario.injections[place].name} takes rows that clients hold, which are not known yet where clients "
            "own rows; aim at another injection, or use another partition than natural",
        )
    return targets


def plan_aimed(
    injection: Injection,
    targets: InjectionPlan | None,
    clients: Sequence[ClientData],
    reserve: Reserve,
    space: Space,
    rng: np.random.Generator,
) -> InjectionPlan:
    """The plan of an injection, made against `targets` where it aims at some.

    Errors: `ComponentError` where its `aims_at` are not examples of these.
    """
    if targets is None or not isinstance(injection, AimedInjection):
        return injection.plan(clients, reserve, space, rng)
    plan = injection.plan_against(targets, clients, reserve, space, rng)
    aims, count = plan.aims_at, len(targets.examples)
    if aims is None or aims.shape != (len(plan.examples),) or aims.min(initial=0) < -1 or aims.max(initial=-1) >= count:
        raise ComponentError(
            "injections", f"plan_against should give each example its target in `aims_at`, from -1 to {count - 1}"
        )
    return plan


def positions_aimed_at(injections: Sequence[Injection], additions: Sequence[InjectionPlan]) -> IntArray | None:
    """(m,) the audit position of the example that each is made against, -1 for none; None where none is."""
    starts = np.cumsum([0, *(len(part.examples) for part in additions)])
    aims = np.full(starts[-1], -1, dtype=np.int64)
    for i, part in enumerate(additions):
        place = place_aimed_at(injections, i)
        if place is not None and part.aims_at is not None:
            aims[starts[i] : starts[i + 1]] = np.where(part.aims_at >= 0, starts[place] + part.aims_at, -1)
    return aims if (aims >= 0).any() else None
