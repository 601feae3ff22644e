"""A kind that stands in the place of another family: which family it is of, and where it belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from fedmem.contracts.families import FAMILIES


def other_family_text(family: str, kind: str) -> str:
    """The end of a message about a kind that this family has not; empty if no other family has it either.

    >>> other_family_text("estimator", "lira")
    '; lira is a kind of attack: write it as {kind: membership, attack: {kind: lira}}'
    >>> other_family_text("sampler", "krum")
    '; krum is a kind of strategy: write it under strategy'
    """
    from fedmem.scenario.catalogue import kinds

    others = [other for other in FAMILIES if other != family and kind in kinds(other)]
    if not others or kind in kinds(family):
        return ""
    places = [place for other in others for place in _places(family, other, kind)]
    use = " or ".join(places) if places else f"under {' or '.join(others)}"
    return f"; {kind} is a kind of {' and of '.join(others)}: write it {'as ' if places else ''}{use}"


def _places(family: str, other: str, kind: str) -> Iterator[str]:
    """The components of a family that take such a component as a field, as a scenario has them."""
    from fedmem.scenario.catalogue import contracts, hints, kinds, load, nested_family, satisfies

    cls = load(other, kind)
    for outer in kinds(family):
        outer_class = load(family, outer)
        for item in fields(outer_class):
            if nested_family(outer_class, item.name) != other:
                continue
            if any(satisfies(cls, contract) for contract in contracts(hints(outer_class)[item.name])):
                yield f"{{kind: {outer}, {item.name}: {{kind: {kind}}}}}"
