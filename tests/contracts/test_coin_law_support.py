"""Tests of `fedmem/contracts/coin_law_support.py`."""

from __future__ import annotations

from dataclasses import dataclass

from fedmem.attacks.lira import Lira
from fedmem.contracts.coin_law_support import explain_law, not_reading_law
from fedmem.estimators.data_value import DataValue
from fedmem.estimators.memorisation import Memorisation


def test_a_component_supports_the_laws_that_it_declares() -> None:
    assert [*not_reading_law(DataValue(), "here", "owen"), *not_reading_law(Memorisation(), "here", "rate")] == []
    assert [path for path, _ in not_reading_law(Memorisation(), "here", "owen")] == ["here"]


def test_an_attack_inside_is_named_with_its_place() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Reads:
        coin_laws = ("balanced", "rate")
        attack: object = Lira()

    assert [path for path, _ in not_reading_law(Reads(), "estimators[0]", "rate")] == ["estimators[0].attack"]
    assert [path for path, _ in not_reading_law(Reads(), "estimators[0]", "owen")] == ["estimators[0]"]


def test_a_subclass_with_methods_declares_its_laws_again() -> None:
    class Other(DataValue):
        def estimate(self, view: object) -> tuple[()]:
            return ()

    assert len(list(not_reading_law(Other(), "here", "owen"))) == 1


def test_the_explanation_names_the_laws_and_the_remedy() -> None:
    text = explain_law(Memorisation(), "owen")
    assert "balanced, rate" in text
    assert "not random inclusion by owen" in text
