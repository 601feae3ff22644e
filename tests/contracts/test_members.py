"""Every public name of a component is a field, a member of its contract, or something that it may declare."""

from __future__ import annotations

import pytest

from fedmem.contracts import members
from fedmem.contracts.families import FAMILIES
from fedmem.scenario import catalogue

EVERY = [(family, kind) for family in FAMILIES for kind in catalogue.kinds(family)]


@pytest.mark.parametrize(("family", "kind"), EVERY, ids="/".join)
def test_components_have_only_declared_public_names(family: str, kind: str) -> None:
    assert members.undeclared_names(family, catalogue.load(family, kind)) == []
