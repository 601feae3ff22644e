"""Tests of `fedmem/privacy/reconstruction_bound.py`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from fedmem.contracts.arrays import FloatArray
from fedmem.privacy import reconstruction_bound
from fedmem.privacy.guarantee import Guarantee
from fedmem.privacy.loss_profiles import profile
from fedmem.privacy.reconstruction_bound import gaussian_success, success_among, success_from_profile


def _of_gaussian(mu: float) -> Callable[[FloatArray], FloatArray]:
    return lambda eps: norm.cdf(mu / 2 - eps / mu) - np.exp(eps + norm.logcdf(-mu / 2 - eps / mu))


def _both_agree() -> None:
    for mu in (0.1, 1.0, 3.0):
        for prior in (0.001, 0.1, 0.5, 0.9):
            by_profile = success_from_profile(prior, _of_gaussian(mu), _of_gaussian(mu))
            exact = gaussian_success(prior, mu)
            assert exact <= by_profile + 1e-9, "a bound from a grid is never too small"
            assert by_profile == pytest.approx(exact, abs=1e-4)


def test_profile_of_gaussian_noise_gives_its_closed_form() -> None:
    _both_agree()


def test_closed_form_notices_a_coarse_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruction_bound, "GRID", np.array([0.0, 1.0]))
    with pytest.raises(AssertionError):
        _both_agree()


def test_explicit_neighbours_of_discrete_outputs() -> None:
    # three candidates and the neighbour without the row, over five outputs; the best guess is the likeliest candidate
    rng = np.random.default_rng(0)
    for _ in range(20):
        outputs = rng.dirichlet(np.ones(5), size=3)
        neighbour = outputs.mean(axis=0)
        success = outputs.max(axis=0).sum() / 3

        def worst(eps: FloatArray, outputs: FloatArray = outputs, q: FloatArray = neighbour) -> FloatArray:
            return np.array([max(np.clip(p - np.exp(min(e, 700)) * q, 0, None).sum() for p in outputs) for e in eps])

        def back(eps: FloatArray, outputs: FloatArray = outputs, q: FloatArray = neighbour) -> FloatArray:
            return np.array([max(np.clip(q - np.exp(min(e, 700)) * p, 0, None).sum() for p in outputs) for e in eps])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconstruction_bound, "GRID", np.linspace(0, 4, 80))
            assert success <= success_from_profile(1 / 3, worst, back) + 1e-12


def test_the_best_guess_among_gaussians_stays_below() -> None:
    # two candidates at distance mu: of one against the other, the bound is not reached; simulated success is below
    rng, mu, m = np.random.default_rng(1), 1.5, 8
    means = mu * np.eye(m)  # each at distance mu from the neighbour at zero
    truth = rng.integers(m, size=20000)
    guess = (means[truth] + rng.standard_normal((20000, m))).argmax(axis=1)
    success = float((guess == truth).mean())
    assert 1 / m < success < gaussian_success(1 / m, mu)


def test_epsilon_and_delta_give_the_bound_of_the_guarantee() -> None:
    guarantee = Guarantee(epsilon=1.0, delta=1e-3)

    def worst(eps: FloatArray) -> FloatArray:
        # the profile of the worst pair of an (epsilon, delta) guarantee
        high = 1 / (1 + math.exp(-1.0)) * (1 - 1e-3)
        return 1e-3 + np.clip(high - np.exp(eps) * (1 - 1e-3 - high), 0, None)

    for prior in (0.01, 0.2, 0.5):
        assert success_from_profile(prior, worst, worst) == pytest.approx(float(guarantee.tpr(prior)), abs=2e-3)


def test_sampling_lowers_the_bound() -> None:
    whole, sampled = (profile("poisson", 1.0, rate) for rate in (1.0, 0.1))
    bounds = [success_from_profile(0.1, one.forward, one.backward) for one in (whole, sampled)]
    assert bounds[0] == pytest.approx(gaussian_success(0.1, 1.0), abs=1e-4)
    assert 0.1 < bounds[1] < 0.2


def test_no_noise_and_no_row_are_the_ends() -> None:
    assert gaussian_success(0.25, math.inf) == 1.0
    assert gaussian_success(0.25, 0.0) == pytest.approx(0.25)
    assert (gaussian_success(0.0, 2.0), gaussian_success(1.0, 2.0)) == (0.0, 1.0)
    with pytest.raises(AssertionError):
        gaussian_success(1.5, 0.0)
    assert success_from_profile(0.3, lambda eps: np.full_like(eps, np.nan), lambda eps: np.ones_like(eps)) == 1.0


def _simplex_success(m: int, mu: float) -> float:
    """The best guess among m normal outputs whose means are the corners of a simplex with radius mu.

    For equal distances it is that of m orthogonal means with length mu sqrt(m / (m - 1)).
    """
    length = mu * math.sqrt(m / (m - 1))
    return float(quad(lambda x: norm.pdf(x - length) * norm.cdf(x) ** (m - 1), -10, 10 + length, limit=200)[0])


def _best_guesses_are_below_and_near() -> None:
    for m in (2, 4, 8, 100):
        for mu in (0.1, 0.3, 1.0, 2.0, 5.0):
            success, bound = _simplex_success(m, mu), gaussian_success(1 / m, mu)
            assert success <= bound + 1e-7
            assert success > bound - 0.07


def test_best_geometry_of_gaussian_noise_is_near_the_bound() -> None:
    _best_guesses_are_below_and_near()
    assert _simplex_success(2, 1.3) == pytest.approx(gaussian_success(0.5, 1.3), abs=1e-8)


@pytest.mark.parametrize("factor", [0.9, 1.3])
def test_geometry_notices_a_wrong_distance(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gaussian_success
    monkeypatch.setitem(globals(), "gaussian_success", lambda prior, mu: right(prior, factor * mu))
    with pytest.raises(AssertionError):
        _best_guesses_are_below_and_near()


def _epsilon_and_delta_are_reached() -> None:
    """Randomised response that publishes the row with probability delta is (epsilon, delta)-private and reaches it."""
    for m, epsilon, delta in ((2, 0.5, 0.0), (4, 1.0, 0.1), (10, 3.0, 0.01), (3, 0.0, 0.2)):
        other = (1 - delta) / (math.exp(epsilon) + m - 1)
        honest = np.full((m, m), other) + np.diag(np.full(m, math.exp(epsilon) * other - other))
        outputs = np.hstack([honest, delta * np.eye(m)])  # the last outputs publish the row
        assert np.allclose(outputs.sum(axis=1), 1)
        excess = np.clip(outputs[0] - math.exp(epsilon) * outputs[1], 0, None).sum()
        assert excess == pytest.approx(delta, abs=1e-12), "the mechanism has this guarantee and no better one"
        assert outputs.max(axis=0).sum() / m == pytest.approx(success_among(m, epsilon, delta), rel=1e-12)


def test_randomised_response_reaches_epsilon_and_delta() -> None:
    _epsilon_and_delta_are_reached()
    assert success_among(5, math.inf, 0.0) == 1.0
    assert success_among(5, 2.0, 1.0) == 1.0


def test_response_notices_another_number_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    right = success_among
    monkeypatch.setitem(globals(), "success_among", lambda m, eps, delta: right(m + 1, eps, delta))
    with pytest.raises(AssertionError):
        _epsilon_and_delta_are_reached()


def test_any_private_outputs_stay_below_epsilon_and_delta() -> None:
    """Delta of random outputs at an epsilon is computed from all pairs; the best guess is the likeliest candidate."""
    rng = np.random.default_rng(2)
    for m in (2, 3, 6):
        for epsilon in (0.1, 1.0, 2.0):
            outputs = rng.dirichlet(np.full(7, 0.7), size=m)
            gaps = outputs[:, None] - math.exp(epsilon) * outputs[None]
            delta = float(np.clip(gaps, 0, None).sum(axis=2).max())
            assert outputs.max(axis=0).sum() / m <= success_among(m, epsilon, delta) + 1e-12


def test_gaussian_bound_is_never_above_that_of_replaced_rows() -> None:
    epsilons = np.linspace(0, 40, 4001)
    for m in (2, 5, 50):
        for mu in (0.2, 1.0, 3.0):
            deltas = _of_gaussian(2 * mu)(epsilons).clip(0)
            pairs = zip(epsilons.tolist(), deltas.tolist(), strict=True)
            by_pairs = min(success_among(m, epsilon, delta) for epsilon, delta in pairs)
            assert gaussian_success(1 / m, mu) <= by_pairs + 1e-9
