"""Tests of `fedmem/contracts/families.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedmem.contracts.families import FAMILIES, kind_of, nested_components, sources
from fedmem.probes.utility import Utility
from fedmem.samplers.dropout import Dropout
from fedmem.samplers.uniform import Uniform
from fedmem.scenario.catalogue import kinds, load


@dataclass(frozen=True)
class Mine:
    parts: tuple[object, ...]
    named: dict[str, object]


def test_every_shipped_class_has_the_kind_of_its_file() -> None:
    for family in FAMILIES:
        for kind in kinds(family):
            component: Any = load(family, kind)
            assert kind_of(component.__new__(component)) == kind, (family, kind)


def test_class_outside_the_families_is_named_by_module_and_class() -> None:
    assert kind_of(Mine(parts=(), named={})) == f"{__name__}:Mine"


def test_nested_paths_go_through_tuples_and_mappings() -> None:
    inner = Dropout(sampler=Uniform(size=2))
    value = Mine(parts=(inner, 3), named={"x": inner})
    assert [path for path, _ in nested_components(value, "top")] == [
        "top",
        "top.parts[0]",
        "top.parts[0].sampler",
        "top.named.x",
        "top.named.x.sampler",
    ]


def test_probes_of_one_kind_are_numbered_from_the_second() -> None:
    probes: list[Any] = [Utility(), Utility(), Utility()]
    assert sources(probes) == ("utility", "utility_2", "utility_3")
