"""Tests of `fedmem/estimators/unique_information.py`."""

from __future__ import annotations

from dataclasses import replace
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


def of_logits(logits: FloatArray, is_in: BoolArray, draws: int = 20) -> View:
    """With margins that would give another value."""
    margin = np.random.default_rng(3).normal(size=logits.shape[:2])
    return make_view(np.zeros(is_in.shape), is_in, test=margin, logits=logits, round_number=None, draws=draws)


def test_logits_of_least_squares_have_the_closed_form() -> None:
    """Two columns: one with the change of the hat matrix, and one that does not change; centred, each has half."""
    change, expected = least_squares()
    is_in = np.arange(8)[:, None] < np.array([4])
    found = estimated(of_logits(np.stack([change, np.ones_like(change)], axis=2), is_in))
    assert found.metric == "unique_information"
    assert found.value == pytest.approx(expected / 2, rel=1e-9)


def test_margins_of_two_classes_give_twice_the_value_of_logits() -> None:
    rng = np.random.default_rng(8)
    is_in, logits = coins(10, 4, rng), rng.normal(size=(10, 6, 2))
    of_margins = estimated(view_of(logits[..., 1] - logits[..., 0], is_in))
    found = estimated(of_logits(logits, is_in))
    assert (found.metric, of_margins.metric) == ("unique_information", "margin_unique_information")
    for name in ("per_example", "per_example_low", "per_example_high"):
        np.testing.assert_allclose(2 * present(getattr(found, name)), present(getattr(of_margins, name)), atol=1e-12)
    assert found.p == of_margins.p


def test_value_of_logits_is_the_mean_over_all_halves() -> None:
    rng = np.random.default_rng(9)
    is_in, logits = coins(6, 2, rng), rng.normal(size=(6, 5, 3))
    centred = logits - logits.mean(axis=2, keepdims=True)
    expected = []
    for coin in is_in.T:
        ins, outs = np.flatnonzero(coin), np.flatnonzero(~coin)
        pairs_in = [(a, b) for a in ins for b in ins if a != b]
        pairs_out = [(a, b) for a in outs for b in outs if a != b]
        values = [
            ((centred[a] - centred[c]) * (centred[b] - centred[d])).sum() / 5 / 2
            for a, b in pairs_in
            for c, d in pairs_out
        ]
        expected.append(np.mean(values))
    np.testing.assert_allclose(present(estimated(of_logits(logits, is_in)).per_example), expected)


def test_squares_of_single_runs_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an effect the mean over banks is 0, and is not if the diagonal is left in."""

    def mean_of_banks() -> float:
        values = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            values.append(estimated(of_logits(rng.normal(size=(8, 10, 3)), coins(8, 4, rng), draws=2)).value)
        return float(np.mean(values))

    assert abs(mean_of_banks()) < 0.05
    monkeypatch.setattr(unique_information, "_without_diagonal", lambda products: products)
    assert mean_of_banks() > 0.2


def test_shuffled_coins_give_nothing_of_logits() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found.append(estimated(of_logits(rng.normal(size=(10, 8, 3)), coins(10, 6, rng), draws=40)))
    assert np.mean([e.p <= 0.1 for e in found]) <= 0.25
    assert 0.25 < np.mean([e.value > 0 for e in found]) < 0.75


def test_one_class_says_nothing_and_diverged_runs_do_not_count() -> None:
    rng = np.random.default_rng(10)
    is_in, logits = coins(8, 3, rng), rng.normal(size=(8, 5, 3))
    assert estimated(of_logits(logits[..., :1], is_in)).value == 0
    kept = np.arange(8) != 2
    expected = present(estimated(of_logits(logits[kept], is_in[kept])).per_example)
    for value in (np.nan, np.inf):
        broken = logits.copy()
        broken[2, 0, 0] = value
        with np.errstate(invalid="ignore"):
            e = estimated(of_logits(broken, is_in))
        assert (e.metric, present(e.per_example_n).tolist()) == ("unique_information", [7] * 3)
        np.testing.assert_allclose(present(e.per_example), expected, atol=1e-12)


def test_margins_stand_in_where_logits_were_not_read() -> None:
    rng = np.random.default_rng(11)
    is_in = coins(8, 3, rng)
    view = of_logits(rng.normal(size=(8, 5, 3)), is_in)
    test = view.sets["test"]
    earlier = tuple(replace(block, round=3) for block in test.signals)
    elsewhere = replace(view, sets={"test": replace(test, signals=earlier)})
    assert [estimated(v).metric for v in (view, elsewhere)] == ["unique_information", "margin_unique_information"]
