"""Tests of `fedmem/estimators/data_value.py`."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.coin_law import BALANCED, CoinLaw
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.measurement import Level
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.semivalues import semivalues
from fedmem.estimators.data_value import DataValue
from tests.banks import coins, make_view
from tests.estimation.games import additive, glove, marginals
from tests.narrowing import present

OWEN = CoinLaw(law="owen")


def view_of(
    utilities: FloatArray,
    is_in: BoolArray,
    *,
    law: CoinLaw = BALANCED,
    rates: FloatArray | None = None,
    kind: list[str] | None = None,
    place: str = "",
    level: Level = "global",
    draws: int = 0,
    **audit: Any,
) -> View:
    """A view whose only model has, on one test row, the loss 20 − U."""
    margin = -np.log(np.expm1(20.0 - utilities))[:, None]
    view = make_view(
        np.zeros(is_in.shape), is_in, kind=kind, test=margin, round_number=None, place=place, level=level, draws=0
    )
    whole = replace(view.audit, coin_law=law, inclusion_rates=rates, **audit)
    return replace(view, audit=whole, redeals=permute_coins(whole, draws, np.random.default_rng(5)))


def by_loss(view: View) -> dict[str, Estimate]:
    return {e.kind: e for e in DataValue().estimate(view) if e.labels.text("statistic") == "loss"}


def owen(runs: int, m: int, seed: int) -> tuple[BoolArray, FloatArray]:
    rng = np.random.default_rng(seed)
    rates = (rng.permutation(runs) + rng.random(runs)) / runs
    return rng.random((runs, m)) < rates[:, None], rates


def test_the_mean_over_all_balanced_coins_is_the_banzhaf_value() -> None:
    columns = [np.isin(np.arange(4), chosen) for chosen in combinations(range(4), 2)]
    every = [np.stack(part, axis=1) for part in product(columns, repeat=3)]
    found = np.mean([present(by_loss(view_of(glove(each), each))["random_pattern"].per_example) for each in every], 0)
    np.testing.assert_allclose(found, [3 / 4, 1 / 4, 1 / 4], atol=1e-12)
    np.testing.assert_allclose(found, marginals(glove, 3) @ [1 / 4, 1 / 2, 1 / 4], atol=1e-12)


def test_one_rate_gives_the_binomial_semivalue() -> None:
    columns = [np.isin(np.arange(4), chosen) for chosen in combinations(range(4), 3)]
    law = CoinLaw(law="rate", rate=0.75)
    every = [np.stack(part, axis=1) for part in product(columns, repeat=3)]
    estimates = [by_loss(view_of(glove(each), each, law=law))["random_pattern"] for each in every]
    truth = marginals(glove, 3) @ [1 / 16, 6 / 16, 9 / 16]
    np.testing.assert_allclose(np.mean([present(e.per_example) for e in estimates], 0), truth, atol=1e-12)
    assert estimates[0].labels.text("semivalue") == "binomial 0.75"


def test_values_are_those_of_the_weights() -> None:
    is_in, rates = owen(20, 5, seed=1)
    utilities = additive(is_in) + np.random.default_rng(0).normal(size=20)
    found = by_loss(view_of(utilities, is_in, law=OWEN, rates=rates, kind=["a", "a", "b", "b", "b"]))
    truth = semivalues(utilities, is_in, is_in.sum(1), 5, OWEN)
    np.testing.assert_allclose(present(found["a"].per_example), truth[:2], atol=1e-9)
    np.testing.assert_allclose(present(found["b"].per_example), truth[2:], atol=1e-9)
    assert found["b"].value == pytest.approx(truth[2:].mean())
    assert (found["b"].n, found["b"].labels.text("semivalue"), found["b"].signed) == (3, "shapley", True)
    assert not np.allclose(present(found["a"].per_example), -truth[:2])


def test_accuracy_is_the_share_of_test_rows() -> None:
    is_in = coins(8, 3, np.random.default_rng(0))
    test = np.where(is_in[:, :1], 1.0, -1.0) * np.ones((1, 4))
    test[:, 3] = -1.0
    view = make_view(np.zeros((8, 3)), is_in, test=test, round_number=None)
    accuracy, loss = DataValue().estimate(view)
    assert present(accuracy.per_example)[0] == pytest.approx(0.75)
    assert present(loss.per_example)[0] == pytest.approx(0.75)
    assert (accuracy.labels.get("statistic"), accuracy.labels.text("semivalue")) == (None, "banzhaf")


@pytest.mark.parametrize("law", [BALANCED, OWEN], ids=str)
def test_no_evidence_has_no_value(law: CoinLaw) -> None:
    is_in, rates = owen(8, 3, seed=2)
    view = view_of(np.zeros(8), is_in, law=law, rates=rates if law == OWEN else None)
    assert DataValue().estimate(replace(view, round=3)) == []
    assert DataValue().estimate(replace(view, place="others", level="local")) == []
    assert DataValue().estimate(replace(view, sets={})) == []
    assert DataValue().tests(view) == ()


@pytest.mark.parametrize("law", [BALANCED, OWEN], ids=str)
def test_runs_that_diverged_do_not_count(law: CoinLaw) -> None:
    is_in, rates = owen(12, 3, seed=3)
    if law == BALANCED:
        is_in = coins(12, 3, np.random.default_rng(3))
    utilities = additive(is_in)
    utilities[4] = np.nan
    found = by_loss(view_of(utilities, is_in, law=law, rates=rates if law == OWEN else None))["random_pattern"]
    assert np.isfinite(present(found.per_example)).all()
    assert present(found.per_example_n).tolist() == [11, 11, 11]
    nothing = view_of(np.full(12, np.nan), is_in, law=law, rates=rates if law == OWEN else None)
    assert by_loss(nothing) == {}


def test_examples_that_nobody_observed_are_left_out() -> None:
    is_in, rates = owen(12, 4, seed=4)
    view = view_of(additive(is_in), is_in, law=OWEN, rates=rates)
    margin = view.margin.copy()
    margin[:, :, 1] = np.nan
    found = by_loss(replace(view, margin=margin))["random_pattern"]
    assert present(found.examples).tolist() == [0, 2, 3]


def test_p_is_small_for_an_effect_and_uniform_without() -> None:
    is_in, rates = owen(24, 6, seed=5)
    noise = 0.3 * np.random.default_rng(1).normal(size=24)
    effect = by_loss(view_of(2.0 * is_in[:, 0] + noise, is_in, law=OWEN, rates=rates, draws=199, kind=[*"abbbbb"]))
    assert effect["a"].p <= 0.02
    assert effect["a"].redeals == 199
    below = 0
    for seed in range(60):
        is_in, rates = owen(12, 4, seed=100 + seed)
        # utility depends on the rate alone, which a permutation of runs would take for an effect
        utilities = 3.0 * rates + 0.1 * np.random.default_rng(seed).normal(size=12)
        below += by_loss(view_of(utilities, is_in, law=OWEN, rates=rates, draws=39))["random_pattern"].p <= 0.1
    assert 1 <= below <= 14


def test_twins_count_once() -> None:
    is_in, rates = owen(12, 4, seed=6)
    utilities = additive(is_in) + np.random.default_rng(2).normal(size=12)
    alone = by_loss(view_of(utilities, is_in, law=OWEN, rates=rates, draws=19))["random_pattern"]
    doubled = view_of(
        np.tile(utilities, 2),
        np.tile(is_in, (2, 1)),
        law=OWEN,
        rates=np.tile(rates, 2),
        draws=19,
        coin_row=np.tile(np.arange(12), 2),
    )
    twins = by_loss(doubled)["random_pattern"]
    np.testing.assert_allclose(present(twins.per_example), present(alone.per_example), atol=1e-9)
    np.testing.assert_allclose(present(twins.per_example_low), present(alone.per_example_low), atol=1e-9)
    np.testing.assert_allclose(twins.influence.cells[:12], alone.influence.cells, atol=1e-9)
    assert not twins.influence.cells[12:].any()
    assert twins.p == pytest.approx(alone.p)


def test_a_coin_group_is_one_player() -> None:
    is_in, rates = owen(16, 3, seed=7)
    utilities = additive(is_in) + np.random.default_rng(3).normal(size=16)
    single = by_loss(view_of(utilities, is_in, law=OWEN, rates=rates))["random_pattern"]
    together = view_of(
        utilities, is_in[:, [0, 1, 2, 2]], law=OWEN, rates=rates, draws=9, coin_group=np.array([0, 1, 2, 2])
    )
    found = by_loss(together)["random_pattern"]
    np.testing.assert_allclose(present(found.per_example), present(single.per_example)[[0, 1, 2, 2]], atol=1e-9)
    assert 0 < found.p <= 1


def test_parts_of_the_runs_have_values_for_agreement() -> None:
    is_in = coins(16, 4, np.random.default_rng(8))
    view = view_of(additive(is_in), is_in)
    (target,) = DataValue().example_targets(view)
    every = target.from_runs(np.ones(16, dtype=bool))
    np.testing.assert_allclose(every, present(by_loss(view)["random_pattern"].per_example), atol=1e-12)
    assert target.from_runs(np.arange(16) < 8).shape == (4,)
    rates = np.full(16, 0.5)
    assert DataValue().example_targets(view_of(additive(is_in), is_in, law=OWEN, rates=rates)) == ()
