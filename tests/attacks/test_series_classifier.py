"""Tests of `fedmem/attacks/_series_classifier.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from fedmem.attacks._series_classifier import TrainedOn, last_values, score_function, standardise, weights_without_run
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from fedmem.estimation.randomisation import areas
from tests.attacks.membership_helpers import everything
from tests.banks import coins

BOTH: tuple[TrainedOn, ...] = ("other_runs", "other_examples")


def signals(
    is_in: BoolArray, rng: np.random.Generator, *, rounds: int = 4, shift: float = 0.0, difficulty: float = 2.0
) -> Signals:
    runs, m = is_in.shape
    margin = difficulty * rng.normal(size=m) + rng.normal(size=(rounds, runs, m)) + shift * is_in
    return Signals(margin=margin[-1], is_in=is_in, series={"margin": margin})


def fitted(columns: FloatArray, target: FloatArray, penalty: float) -> FloatArray:
    """Ridge logistic regression by a general optimiser."""

    def loss(weights: FloatArray) -> float:
        odds = columns @ weights
        return float((np.logaddexp(0, odds) - target * odds).sum() + penalty / 2 * weights @ weights)

    return np.asarray(minimize(loss, np.zeros(columns.shape[1]), tol=1e-12).x)


def test_without_a_run_weights_are_those_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    is_in = coins(6, 5, rng)
    raw = rng.normal(size=(6, 5, 2)) + 0.8 * is_in[:, :, None]
    columns = standardise(raw, 0)
    weights = weights_without_run(columns, is_in, np.ones_like(is_in), 3.0)
    for run in range(6):
        rest = np.delete(columns, run, axis=0)
        rest = (rest - rest.mean(0)).reshape(-1, 2)
        want = fitted(rest, np.delete(is_in, run, axis=0).ravel().astype(np.float64), 3.0)
        np.testing.assert_allclose(weights[run], want, atol=1e-4)


def test_one_half_of_the_examples_scores_the_other() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(8, 10, rng)
    given = signals(is_in, rng, shift=1.0)
    scores = score_function(given, [given.series["margin"]], 3, 0.5, "other_examples")(is_in)
    columns = standardise(np.moveaxis(given.series["margin"][-3:], 0, 2), 1)
    for run in range(8):
        want = fitted(columns[run, 1::2], is_in[run, 1::2].astype(np.float64), 1.5)
        np.testing.assert_allclose(scores[run, ::2], columns[run, ::2] @ want, atol=1e-4)


@pytest.mark.parametrize("trained_on", BOTH)
def test_no_score_knows_the_coin_of_its_target(trained_on: TrainedOn) -> None:
    rng = np.random.default_rng(2)
    is_in = coins(8, 6, rng)
    given = signals(is_in, rng, shift=1.0)
    under = score_function(given, [given.series["margin"]], 4, 1.0, trained_on)
    before, turned = under(is_in), is_in.copy()
    turned[3, 2] = ~turned[3, 2]
    after = under(turned)
    own = np.zeros_like(is_in)
    own[3, :: 1 if trained_on == "other_runs" else 2] = True  # its run, or the examples of its half
    np.testing.assert_allclose(after[own], before[own], atol=1e-9)
    assert not np.allclose(after[~own], before[~own], atol=1e-6)


def test_last_values_skip_rounds_without_a_model() -> None:
    rng = np.random.default_rng(3)
    series = rng.normal(size=(7, 3, 5))
    away = rng.random((7, 5)) < 0.5
    series[np.broadcast_to(away[:, None], series.shape)] = np.nan
    found = last_values(series, 3)
    for j in range(5):
        left = series[~away[:, j], :, j][-3:]
        np.testing.assert_array_equal(found[:, j, 3 - len(left) :], left.T)
        assert np.isnan(found[:, j, : 3 - len(left)]).all()
    assert last_values(series[:0], 2).shape == (3, 5, 2)


@pytest.mark.parametrize("trained_on", BOTH)
def test_members_are_found_and_more_rounds_help(trained_on: TrainedOn) -> None:
    rng = np.random.default_rng(4)
    is_in = coins(16, 60, rng)
    given = signals(is_in, rng, rounds=8, shift=1.0, difficulty=0.2)
    one, all_rounds = (
        everything(score_function(given, [given.series["margin"]], n, 1.0, trained_on)(is_in), is_in) for n in (1, 8)
    )
    assert one > 0.65
    assert all_rounds > one + 0.1


@pytest.mark.parametrize("trained_on", BOTH)
@pytest.mark.parametrize(("runs", "m"), [(8, 8), (8, 1), (32, 24)])
def test_without_memorisation_the_area_is_one_half(trained_on: TrainedOn, runs: int, m: int) -> None:
    """Examples of very different difficulty, whose values all move together in a run: about a hundredth below."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200 if m == 8 else 20):
        is_in = coins(runs, m, rng)
        given = signals(is_in, rng)
        given.series["margin"][:] += rng.normal(size=(4, runs, 1))
        found.append(everything(score_function(given, [given.series["margin"]], 4, 1.0, trained_on)(is_in), is_in))
    if m == 1:
        assert np.isnan(found).all()  # an area over pairs of different examples needs two
    else:
        assert abs(np.mean(found) - 0.49) < 0.012 + 3 * np.std(found) / np.sqrt(len(found))


def test_p_by_dealing_again_holds_its_level() -> None:
    rng = np.random.default_rng(6)
    below = 0
    for _ in range(30):
        is_in = coins(8, 6, rng)
        given = signals(is_in, rng)
        under = score_function(given, [given.series["margin"]], 4, 1.0, "other_runs")
        deals = [is_in, *(coins(8, 6, rng) for _ in range(19))]
        statistics = [float(areas(under(deal), deal[None].astype(np.float64))[0]) for deal in deals]
        below += np.argsort(statistics)[-1] == 0  # the largest of twenty: 5 %
    assert below <= 5


@pytest.mark.parametrize("trained_on", BOTH)
def test_ties_and_missing_values(trained_on: TrainedOn) -> None:
    rng = np.random.default_rng(7)
    is_in = coins(8, 4, rng)
    same = np.full((3, 8, 4), 0.1 + 0.2)
    equal = Signals(margin=same[0], is_in=is_in, series={"margin": same})
    assert (score_function(equal, [same], 3, 1.0, trained_on)(is_in) == 0).all()
    nothing = Signals(margin=same[0], is_in=is_in, series={"margin": same[:0]})
    assert (score_function(nothing, [same[:0]], 3, 1.0, trained_on)(is_in) == 0).all()
    given = signals(is_in, rng)
    margin = given.margin.copy()
    margin[2, 1] = np.nan  # a model that has diverged
    given.series["margin"][:, 2, 1] = np.nan
    seen = Signals(margin=margin, is_in=is_in)
    scores = score_function(seen, [given.series["margin"]], 3, 1.0, trained_on)(is_in)
    assert (np.isnan(scores) == np.isnan(margin)).all()


def test_far_apart_classes_have_finite_weights() -> None:
    rng = np.random.default_rng(8)
    is_in = coins(8, 12, rng)
    given = signals(is_in, rng, shift=1000.0)
    for trained_on in BOTH:
        scores = score_function(given, [given.series["margin"]], 4, 1e-3, trained_on)(is_in)
        assert np.isfinite(scores).all()
        assert everything(scores, is_in) > 0.95
