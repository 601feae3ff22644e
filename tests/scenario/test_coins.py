"""Tests of `fedmem/scenario/coins.py`."""

from __future__ import annotations

from fedmem.contracts.coin_law import BALANCED, CoinLaw
from fedmem.scenario.coins import Coins
from tests.tiny import tiny


def test_a_law_has_the_parameters_that_are_given() -> None:
    assert Coins().as_law == BALANCED
    assert Coins(law="beta", alpha=16, beta=2).as_law == CoinLaw(law="beta", alpha=16.0, beta=2.0)


def test_the_default_is_no_part_of_the_id() -> None:
    assert tiny(runs=8).id == tiny(runs=8, coins={"law": "balanced"}).id
    assert tiny(runs=8, estimators=[]).id != tiny(runs=8, estimators=[], coins={"law": "owen"}).id
