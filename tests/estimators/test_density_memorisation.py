"""Tests of `fedmem/estimators/density_memorisation.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import View
from fedmem.estimation.statistics import welch_columns
from fedmem.estimation.two_way import interval
from fedmem.estimators.density_memorisation import DensityMemorisation
from tests.banks import coins, make_view
from tests.narrowing import present


def density_view(log_p: FloatArray, is_in: BoolArray, draws: int = 50, kind: list[str] | None = None) -> View:
    """The summary of models that give these log-densities, (R, m) or (R, Q, m)."""
    view = make_view(log_p, is_in, kind=kind, draws=draws, round_number=None)
    return replace(view, loss=-view.margin, correct=np.full(view.margin.shape, np.nan))


def test_value_is_the_difference_of_mean_log_densities() -> None:
    rng = np.random.default_rng(0)
    is_in, log_p = coins(8, 5, rng), rng.normal(-30, 5, size=(8, 5))
    first, second = DensityMemorisation().estimate(density_view(log_p, is_in, kind=["a", "a", "b", "b", "b"]))
    expected = np.array([log_p[c, j].mean() - log_p[~c, j].mean() for j, c in enumerate(is_in.T)])
    np.testing.assert_allclose(present(first.per_example), expected[:2])
    np.testing.assert_allclose(present(second.per_example), expected[2:])
    assert second.value == pytest.approx(expected[2:].mean())
    assert (first.n, second.n, first.null, first.kind) == (2, 3, 0, "a")
    for j in range(2):
        x, c = log_p[:, j], is_in[:, j]
        low, high = welch_columns(x[c][:, None], x[~c][:, None])
        assert present(first.per_example_low)[j] == pytest.approx(low[0])
        assert present(first.per_example_high)[j] == pytest.approx(high[0])


def test_likelier_members_have_a_positive_value_and_small_p() -> None:
    rng = np.random.default_rng(1)
    is_in = coins(16, 8, rng)
    (found,) = DensityMemorisation().estimate(density_view(rng.normal(size=(16, 8)) + 3 * is_in, is_in, draws=200))
    low, high = interval(found.value, found.influence, 8, found.bounds)
    assert 2 < low < 3 < high < 4
    assert found.p < 0.02
    assert (present(found.per_example) > 0).all()


def test_constant_densities_have_a_value_of_zero() -> None:
    rng = np.random.default_rng(2)
    log_p = np.tile(rng.normal(-30, 5, size=6), (8, 1))
    (found,) = DensityMemorisation().estimate(density_view(log_p, coins(8, 6, rng)))
    assert found.value == 0
    assert found.p == 1


def test_diverged_models_count_as_not_observed() -> None:
    rng = np.random.default_rng(3)
    is_in, log_p = coins(8, 4, rng), rng.normal(size=(8, 4))
    log_p[:, 0] = np.nan
    log_p[is_in[:, 1], 1] = -np.inf  # no in run is left
    lost = np.flatnonzero(is_in[:, 2])[0]
    log_p[lost, 2] = np.inf
    (found,) = DensityMemorisation().estimate(density_view(log_p, is_in))
    assert present(found.examples).tolist() == [2, 3]
    assert present(found.per_example_n).tolist() == [7, 8]
    kept = is_in[:, 2] & (np.arange(8) != lost)
    assert present(found.per_example)[0] == pytest.approx(log_p[kept, 2].mean() - log_p[~is_in[:, 2], 2].mean())
    assert DensityMemorisation().estimate(density_view(np.full((8, 4), np.nan), is_in)) == []


def test_one_run_on_a_side_has_a_value_and_no_interval() -> None:
    is_in = np.array([[True], [False]])
    (found,) = DensityMemorisation().estimate(density_view(np.array([[-1.0], [-3.0]]), is_in))
    assert found.value == 2
    assert np.isnan(present(found.per_example_low)).all()


def test_log_p_of_a_place_is_the_mean_over_its_models() -> None:
    rng = np.random.default_rng(4)
    is_in, cube = coins(8, 3, rng), rng.normal(size=(8, 2, 3))
    cube[0, 1] = np.nan
    (found,) = DensityMemorisation().estimate(density_view(cube, is_in))
    (same,) = DensityMemorisation().estimate(density_view(np.nanmean(cube, axis=1), is_in))
    np.testing.assert_allclose(present(found.per_example), present(same.per_example))


def test_labels_have_minus_their_loss() -> None:
    rng = np.random.default_rng(5)
    is_in, margin = coins(8, 3, rng), rng.normal(size=(8, 3))
    view = make_view(margin, is_in)
    (found,) = DensityMemorisation().estimate(view)
    (same,) = DensityMemorisation().estimate(density_view(-np.logaddexp(0, -margin), is_in))
    assert found.value == pytest.approx(same.value)


def test_heavy_tails_without_an_effect_are_seldom_significant() -> None:
    """Of 300 banks with t-distributed log-densities and no effect, about 5 % have p up to .05, or an interval off 0."""
    rng = np.random.default_rng(6)
    small, missed = 0, 0
    for _ in range(300):
        is_in = coins(16, 8, rng)
        log_p = rng.standard_t(3, size=(16, 8)) + rng.standard_t(3, size=8) * 5
        (found,) = DensityMemorisation().estimate(density_view(log_p, is_in, draws=99))
        low, high = interval(found.value, found.influence, 8, found.bounds)
        small += found.p <= 0.05
        missed += not low <= 0 <= high
    assert 3 <= small <= 27
    assert missed <= 27


def test_passages_count_all_tokens_that_are_asked_for() -> None:
    """The loss of a passage is a mean over its tokens that are asked for, and log p is their sum."""
    rng = np.random.default_rng(7)
    is_in, log_p = coins(8, 3, rng), rng.normal(-5, 1, size=(8, 3))
    targets = np.array([[4, 2, 7], [-1, 1, 1], [-1, -1, 3]])
    view = density_view(log_p, is_in)
    view = replace(view, audit=replace(view.audit, examples=replace(view.audit.examples, targets=targets)))
    (found,) = DensityMemorisation().estimate(view)
    (single,) = DensityMemorisation().estimate(density_view(log_p, is_in))
    np.testing.assert_allclose(present(found.per_example), present(single.per_example) * [3, 2, 1])
