"""Tests of `fedmem/estimators/unique_information.py`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.two_way import interval
from fedmem.estimators import unique_information
from fedmem.estimators.unique_information import UniqueInformation
from tests.banks import coins, make_view
from tests.narrowing import present


def view_of(test: FloatArray, is_in: BoolArray, draws: int = 20) -> View:
    return make_view(np.zeros(is_in.shape), is_in, test=test, round_number=None, draws=draws)


def estimated(view: View) -> Estimate:
    (e,) = UniqueInformation().estimate(view)
    return e


def test_value_is_the_mean_over_all_halves_of_the_runs() -> None:
    rng = np.random.default_rng(0)
    is_in, test = coins(8, 3, rng), rng.normal(size=(8, 5))
    expected = []
    for coin in is_in.T:
        ins, outs = np.flatnonzero(coin), np.flatnonzero(~coin)
        products = []
        for a, b in ((a, b) for a in combinations(ins, 2) for b in combinations(outs, 2)):
            first = test[list(a)].mean(0) - test[list(b)].mean(0)
            rest_in, rest_out = np.setdiff1d(ins, a), np.setdiff1d(outs, b)
            products.append(first @ (test[rest_in].mean(0) - test[rest_out].mean(0)) / 5 / 2)
        expected.append(np.mean(products))
    np.testing.assert_allclose(present(estimated(view_of(test, is_in)).per_example), expected)


def least_squares(residual_of_first: bool = True) -> tuple[FloatArray, float]:
    """Margins of runs with and without row 0 of least squares, and half of their mean square by the hat matrix."""
    rng = np.random.default_rng(1)
    x, y, unseen = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=(6, 3))
    y[0] += 5
    if not residual_of_first:  # the label that the other rows predict
        y[0] = x[0] @ np.linalg.lstsq(x[1:], y[1:], rcond=None)[0]
    whole, without = (np.linalg.lstsq(x[k:], y[k:], rcond=None)[0] for k in (0, 1))
    inverse = np.linalg.inv(x.T @ x)
    leverage, residual = x[0] @ inverse @ x[0], y[0] - x[0] @ whole
    change = unseen @ inverse @ x[0] * residual / (1 - leverage)
    test = np.array([unseen @ whole] * 4 + [unseen @ without] * 4)
    return test, float((change**2).mean() / 2)


def test_least_squares_have_the_closed_form_of_the_hat_matrix() -> None:
    test, expected = least_squares()
    is_in = np.arange(8)[:, None] < np.array([4])
    assert expected > 0.01
    assert estimated(view_of(test, is_in)).value == pytest.approx(expected, rel=1e-9)


def test_an_example_without_residual_has_no_information() -> None:
    test, expected = least_squares(residual_of_first=False)
    assert expected < 1e-20
    assert abs(estimated(view_of(test, np.arange(8)[:, None] < np.array([4]))).value) < 1e-20


@pytest.mark.parametrize("factor", [1.0, -0.5])
def test_broken_normaliser_or_sign_is_found(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    test_least_squares_have_the_closed_form_of_the_hat_matrix()
    monkeypatch.setattr(unique_information, "_HALF", factor)
    with pytest.raises(AssertionError):
        test_least_squares_have_the_closed_form_of_the_hat_matrix()


def simulated(effect: FloatArray, seed: int, runs: int = 16, noise: float = 1.0) -> View:
    """Each example j adds effect (m, n) to the margins where it is in, and each run noise."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, len(effect), rng)
    return view_of(is_in @ effect + noise * rng.normal(size=(runs, effect.shape[1])), is_in, draws=60)


def test_no_bias_with_or_without_an_effect_of_the_example() -> None:
    """A square of the difference itself is too large by its variance, here by 0.25 and more."""
    effect = np.random.default_rng(5).normal(size=(10, 20)) * np.repeat([0.0, 0.5], 5)[:, None]
    found = np.array([present(estimated(simulated(effect, seed)).per_example) for seed in range(100)])
    error = found.std(0) / np.sqrt(len(found))
    expected = (effect**2).mean(1) / 2
    assert (np.abs(found.mean(0) - expected) < 4 * error).all()
    assert error.max() < 0.02


def test_shuffled_coins_give_nothing() -> None:
    found = [estimated(simulated(np.zeros((8, 10)), seed)) for seed in range(80)]
    assert np.mean([e.p <= 0.1 for e in found]) <= 0.2
    assert 0.3 < np.mean([e.value > 0 for e in found]) < 0.7


def test_intervals_hold_the_truth() -> None:
    effect = np.random.default_rng(6).normal(size=(24, 20)) * 0.4
    truth = float((effect**2).mean() / 2)
    held, seen = 0, 0
    for seed in range(100):
        e = estimated(simulated(effect, seed))
        low, high = interval(e.value, e.influence, 16)
        held += low <= truth <= high
        seen += low > 0
    assert held >= 92
    assert seen >= 85


def test_diverged_runs_and_other_places_do_not_count() -> None:
    rng = np.random.default_rng(7)
    is_in, test = coins(8, 4, rng), rng.normal(size=(8, 5))
    test[0, 2] = np.nan
    e = estimated(view_of(test, is_in))
    assert present(e.per_example_n).tolist() == [7] * 4
    kept = np.arange(8) != 0
    np.testing.assert_allclose(
        present(e.per_example), present(estimated(view_of(test[kept], is_in[kept])).per_example), atol=1e-12
    )
    view = view_of(test, is_in)
    for place in ({"round_number": 3}, {"place": "others", "round_number": None}):
        assert not UniqueInformation().estimate(make_view(np.zeros((8, 4)), is_in, test=test, **place))
    assert UniqueInformation().tests(view) == ()
