"""Which components support which law of random inclusion."""

from __future__ import annotations

from collections.abc import Iterator

from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.coin_law import Law
from fedmem.contracts.families import kind_of, nested_components
from fedmem.contracts.needs import needs_of


def not_reading_law(component: object, path: str, law: Law) -> Iterator[tuple[str, object]]:
    """A component that measures, or the attacks inside it, with their places, if they do not support this law.

    A membership attack that reads no random inclusion has the same scores under any law.

    >>> from fedmem.estimators.audit import Audit
    >>> [path for path, _ in not_reading_law(Audit(), "estimators[0]", "owen")]
    ['estimators[0]']
    """
    if law not in needs_of(component).coin_laws:
        yield path, component
        return
    for place, part in nested_components(component, path):
        if isinstance(part, MembershipAttack):
            declared = attack_declaration(part)
            if declared.reads_coins and law not in declared.coin_laws:
                yield place, part


def explain_law(component: object, law: Law) -> str:
    """Why a component is refused under this law."""
    supported = needs_of(component).coin_laws
    laws, remedy = ", ".join(supported), "balanced" if "balanced" in supported or not supported else supported[0]
    return (
        f"{kind_of(component)} supports random inclusion by {laws}, and not random inclusion by {law}; write "
        f"`coins: {{law: {remedy}}}`, or leave it out"
    )
