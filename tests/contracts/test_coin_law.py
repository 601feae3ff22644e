"""Tests of `fedmem/contracts/coin_law.py`."""

from __future__ import annotations

from fedmem.contracts.coin_law import BALANCED, CoinLaw


def test_laws_with_rates_of_runs_vary() -> None:
    assert [CoinLaw(law=law).varies for law in ("balanced", "rate", "owen", "beta")] == [False, False, True, True]
    assert CoinLaw() == BALANCED


def test_each_law_names_its_semivalue() -> None:
    assert CoinLaw(law="beta", alpha=16.0).semivalue == "beta(16, 1)"
    assert CoinLaw(law="owen").semivalue == "shapley"
    assert BALANCED.semivalue == "banzhaf"
