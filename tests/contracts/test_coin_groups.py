"""Tests of `fedmem/contracts/coin_groups.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.coin_groups import explain_groups, not_counting_groups
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measurement import Reading
from fedmem.errors import ComponentError
from fedmem.estimation.estimates import estimate
from fedmem.estimators.memorisation import Memorisation
from tests.banks import make_bank


@dataclass(frozen=True, kw_only=True)
class SaysNothing:
    """An estimator of another package that knows no groups."""

    def estimate(self, view: View) -> list[Estimate]:
        return []

    def tests(self, view: View) -> list[tuple[int | None, Reading]]:
        return []


class Changed(Memorisation):
    """A subclass with methods of its own has to declare again."""

    def further(self) -> FloatArray:
        return np.zeros(1)


class Unchanged(Memorisation):
    """A subclass that adds nothing counts as its base does."""


def refused(component: object) -> list[str]:
    return [path for path, _ in not_counting_groups(component, "here")]


def test_only_components_that_say_so_count_groups() -> None:
    assert refused(Memorisation()) == refused(Unchanged()) == []
    assert refused(SaysNothing()) == refused(Changed()) == ["here"]
    assert "examples of a, b are in or out together; write `included: each`" in explain_groups(SaysNothing(), "a, b")


def test_estimates_of_groups_are_refused_without_a_scenario() -> None:
    """`fedmem.measure` and code of one's own come here, and no check of a scenario has seen them."""
    bank = make_bank(clients=2, cohort=2, kinds=("typical",), rounds=(0, 1))
    grouped = replace(bank, audit=replace(bank.audit, coin_group=np.array([0, 0, 2, 2])))
    assert estimate(bank, [SaysNothing()], 10) == []
    with pytest.raises(ComponentError, match=r"takes every example as drawn alone") as error:
        estimate(grouped, [Memorisation(), SaysNothing()], 10)
    assert error.value.path == "estimators[1]"
