"""Which components take examples that are in or out together as one draw."""

from __future__ import annotations

from collections.abc import Iterator

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of


def not_counting_groups(component: object, path: str) -> Iterator[tuple[str, object]]:
    """A component that measures, or the attacks inside it, with their places, if they take each example as drawn alone.

    A membership attack that reads no random inclusion has the same scores however it was drawn.

    >>> from fedmem.estimators.audit import Audit
    >>> [path for path, _ in not_counting_groups(Audit(), "estimators[0]")]
    ['estimators[0]']
    """
    if not needs_of(component).counts_groups:
        yield path, component
        return
    for place, part in nested_components(component, path):
        if isinstance(part, MembershipAttack):
            declared = attack_declaration(part)
            if declared.reads_coins and not declared.counts_groups:
                yield place, part


def explain_groups(component: object, names: str) -> str:
    """Why a component is refused where these injections have examples that are in or out together."""
    return (
        f"{kind_of(component)} takes every example as drawn alone, but examples of {names} are in or out together; "
        "write `included: each` there, or leave it out"
    )
