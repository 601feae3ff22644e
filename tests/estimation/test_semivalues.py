"""Tests of `fedmem/estimation/semivalues.py`."""

from __future__ import annotations

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.coin_law import CoinLaw
from fedmem.estimation import semivalues
from fedmem.estimation.semivalues import contributions, mean_semivalue, size_weights, slopes_of_powers
from fedmem.federation.coin_draws import beta_quantiles, draw_from_strata
from tests.estimation.games import (
    Game,
    additive,
    beta_shapley,
    by_integral,
    chances,
    glove,
    sets_of,
    shapley,
    table_game,
)

OWEN = CoinLaw(law="owen")
LAWS = (OWEN, CoinLaw(law="beta", alpha=16.0), CoinLaw(law="beta", beta=4.0), CoinLaw(law="beta", alpha=2.5, beta=0.5))


def expected(game: Game, m: int, law: CoinLaw, coefficients: FloatArray) -> FloatArray:
    """The expectation of the estimator with a fixed curve, over all sets."""
    coins = sets_of(m)
    sizes = coins.sum(1)
    curve = semivalues._basis(sizes, m, law, len(coefficients) - 1) @ coefficients
    weights = size_weights(coins, sizes, m, law)
    rest = chances(coins, law) @ (weights * (game(coins) - curve)[:, None])
    return rest + slopes_of_powers(m, law, len(coefficients) - 1) @ coefficients


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("m", [1, 3, 5])
def test_the_expectation_is_the_semivalue(m: int, law: CoinLaw) -> None:
    game = glove if m == 3 else table_game(m, seed=m)
    truth = beta_shapley(game, m, law)
    for coefficients in ([0.0], [1.0, -2.0], [0.3, 0.5, 4.0]):
        np.testing.assert_allclose(expected(game, m, law, np.array(coefficients)), truth, atol=1e-12)


def test_values_of_the_glove_game() -> None:
    np.testing.assert_allclose(expected(glove, 3, OWEN, np.array([0.5, 1.0])), [2 / 3, 1 / 6, 1 / 6], atol=1e-12)
    np.testing.assert_allclose(shapley(glove, 3), [2 / 3, 1 / 6, 1 / 6], atol=1e-12)


def test_owen_rates_give_the_value_over_orders() -> None:
    game = table_game(5, seed=1)
    np.testing.assert_allclose(expected(game, 5, OWEN, np.zeros(1)), shapley(game, 5), atol=1e-12)
    np.testing.assert_allclose(by_integral(game, 5, OWEN), shapley(game, 5), atol=1e-12)


@pytest.mark.parametrize("law", [law for law in LAWS if law.beta >= 1], ids=str)
def test_the_direction_of_beta_is_that_of_the_integral(law: CoinLaw) -> None:
    """The rate is from Beta(β, α): a large α weights small sets."""
    game = table_game(4, seed=2)
    np.testing.assert_allclose(by_integral(game, 4, law), beta_shapley(game, 4, law), atol=1e-10)
    swapped = CoinLaw(law="beta", alpha=law.beta, beta=law.alpha)
    if law != OWEN:
        assert np.abs(by_integral(game, 4, swapped) - beta_shapley(game, 4, law)).max() > 0.05


def test_shares_of_the_whole_dummies_and_additive_games() -> None:
    game = table_game(4, seed=3)
    coins = sets_of(4)
    whole = game(coins[-1:])[0] - game(coins[:1])[0]
    assert expected(game, 4, OWEN, np.zeros(2)).sum() == pytest.approx(whole, abs=1e-12)
    assert abs(expected(game, 4, LAWS[1], np.zeros(2)).sum() - whole) > 0.01, "only the Shapley value is efficient"
    for law in LAWS:
        np.testing.assert_allclose(expected(additive, 4, law, np.ones(3)), [0, 1, 2, 3], atol=1e-11)


@pytest.mark.parametrize("broken", ["sign", "rate", "curve"])
def test_broken_weights_are_no_semivalue(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = shapley(glove, 3)
    scales = semivalues._scales
    if broken == "sign":
        monkeypatch.setattr(semivalues, "_scales", lambda *a: tuple(-scale for scale in scales(*a)))
    elif broken == "rate":
        monkeypatch.setattr(semivalues, "_scales", lambda s, m, law: (np.full(s.shape, 2.0),) * 2)
    else:
        monkeypatch.setattr(semivalues, "slopes_of_powers", lambda m, law, degree: np.zeros(degree + 1))
        monkeypatch.setitem(globals(), "slopes_of_powers", semivalues.slopes_of_powers)
    assert np.abs(expected(glove, 3, OWEN, np.array([0.5, 1.0])) - truth).max() > 0.05


def test_the_fitted_curve_leaves_out_each_run() -> None:
    rng = np.random.default_rng(0)
    coins = rng.random((16, 9)) < rng.random((16, 1))
    sizes, utilities = coins.sum(1), rng.normal(size=16)
    curve = semivalues.fit_curve(utilities, sizes, 9, OWEN)
    degree = len(curve.slopes) - 1
    assert degree == 2
    for run in range(16):
        others = np.arange(16) != run
        place = 2 * sizes / 9 - 1
        fitted = np.polynomial.Polynomial.fit(place[others], utilities[others], degree, domain=[-1, 1], window=[-1, 1])
        assert curve.rest[run] == pytest.approx(utilities[run] - fitted(place[run]), abs=1e-7)


def test_the_mean_over_examples_is_that_of_their_values() -> None:
    rng = np.random.default_rng(1)
    coins = rng.random((20, 7)) < rng.random((20, 1))
    sizes, utilities = coins.sum(1), rng.normal(size=20)
    values = semivalues.semivalues(utilities, coins[:, :4], sizes, 7, OWEN)
    found = mean_semivalue(utilities, coins[None, :, :4].sum(2), 4, sizes[None], 7, OWEN)
    assert found[0] == pytest.approx(values.mean(), abs=1e-12)


def test_equal_utilities_are_worth_nothing() -> None:
    coins = np.random.default_rng(2).random((12, 5)) < 0.5
    found = contributions(np.full(12, 0.7), coins, coins.sum(1), 5, OWEN)
    np.testing.assert_allclose(found.values, 0.0, atol=1e-12)
    assert np.isnan(found.low).all(), "no spread is no certainty"


def test_few_runs_on_a_side_have_no_interval() -> None:
    coins = np.zeros((10, 2), dtype=bool)
    coins[:2, 0] = coins[:5, 1] = True
    found = contributions(np.random.default_rng(3).normal(size=10), coins, coins.sum(1), 2, OWEN)
    assert np.isnan(found.low).tolist() == [True, False]


def _simulate(runs: int, law: CoinLaw, repetitions: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values, coverage, and values by weights of the rate without a curve, of a concave game with noise."""
    rng, m = np.random.default_rng(runs), 40
    effects = rng.normal(0.002, 0.005, m)

    def game(coins: BoolArray) -> FloatArray:
        return np.asarray(0.3 * (1 - np.exp(-4 * coins.mean(1))) + coins @ effects)

    sizes = np.arange(m)
    both = [0.3 * (1 - np.exp(-4 * (sizes + more) / m)) for more in (0, 1)]
    from scipy.stats import betabinom

    truth = effects + betabinom.pmf(sizes, m - 1, law.beta, law.alpha) @ (both[1] - both[0])
    errors, covered, plain = [], [], []
    for _ in range(repetitions):
        rates = beta_quantiles(draw_from_strata(runs, rng), law.alpha, law.beta)[:, None]
        coins = rng.random((runs, m)) < rates
        utilities = game(coins) + 0.02 * rng.standard_normal(runs)
        found = contributions(utilities, coins, coins.sum(1), m, law)
        errors.append(found.values - truth)
        is_known = ~np.isnan(found.low)
        covered += ((found.low <= truth) & (truth <= found.high))[is_known].tolist()
        plain.append(((coins / rates - ~coins / (1 - rates)) * utilities[:, None]).mean(0) - truth)
    return np.array(errors), np.array(covered, dtype=np.float64), np.array(plain)


@pytest.mark.parametrize("runs", [8, 16, 64])
@pytest.mark.parametrize("law", LAWS[:3], ids=str)
def test_intervals_hold_their_level(runs: int, law: CoinLaw) -> None:
    errors, covered, plain = _simulate(runs, law, 120)
    assert covered.mean() > 0.95
    bias = errors.mean()
    assert abs(bias) < 4 * errors.mean(1).std() / np.sqrt(len(errors))
    if law == OWEN:
        assert errors.std() < 0.35 * plain.std(), "the curve takes off most of the variance"
