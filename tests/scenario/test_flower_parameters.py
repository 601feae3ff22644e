"""Parameters of a Flower strategy are checked by the annotations of its signature."""

from __future__ import annotations

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.catalogue import build
from fedmem.scenario.describe import field_facts

KIND = "flwr.serverapp.strategy:FedAvg"


def test_values_are_checked_by_the_annotation() -> None:
    build("strategy", {"kind": KIND, "fraction_train": 1})
    with pytest.raises(ScenarioError, match="'banana' should be float"):
        build("strategy", {"kind": KIND, "fraction_train": "banana"})


def test_types_and_defaults_are_those_of_the_signature() -> None:
    (fact,) = [fact for fact in field_facts("strategy", KIND) if fact.name == "fraction_train"]
    assert (fact.type, fact.default) == ("number", "1.0")
