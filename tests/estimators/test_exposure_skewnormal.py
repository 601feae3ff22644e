from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import kstest, skewnorm

from fedmem.estimators._skew_normal import fit, log_cdf, positions
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.exposure_skewnormal import ExposureSkewnormal
from tests.banks import coins
from tests.estimators.exposure_skewnormal_helpers import canaries, exact_quantiles, law
from tests.labelling import labels
from tests.narrowing import present

# The distribution


# The estimator


def test_extrapolated_exposure_is_the_closed_form() -> None:
    count, shape = 1000, 3.0
    is_in = np.array([[True] * 4, [False] * 4])
    quantiles = np.tile(exact_quantiles(shape, 6.0, 1.0, count), (2, 1))
    loss = np.tile(6.0 + np.array([2.0, 0.0, -0.6, -1.2]), (2, 1))  # from the bulk to far below every reference
    view = canaries(loss, is_in, quantiles, count)
    (e,) = ExposureSkewnormal().estimate(view)
    exact = -log_cdf(loss[0], law(6.0, 1.0, shape)) / math.log(2)
    np.testing.assert_allclose(present(e.per_example), exact, rtol=0.02, atol=0.02)
    assert exact[-1] > 1.5 * math.log2(count + 1)
    assert e.null == pytest.approx(1.4427, abs=1e-4)
    assert e.value == pytest.approx(exact.mean(), rel=0.02)
    # A wrong sign of the shape, or nats taken for bits, would be far off.
    assert abs(-log_cdf(loss[0, 3:], law(6.0, 1.0, -shape))[0] / math.log(2) - exact[-1]) > 5
    assert abs(exact[-1] * math.log(2) - present(e.per_example)[-1]) > 5


def test_in_the_bulk_it_is_the_exposure_by_rank() -> None:
    rng = np.random.default_rng(1)
    runs, m, count = 8, 40, 2000
    is_in = coins(runs, m, rng)
    references = np.sort(6 + skewnorm.rvs(2.0, size=(runs, count), random_state=rng), axis=1)
    loss = 6 + skewnorm.rvs(2.0, size=(runs, m), random_state=rng)
    rank = 1 + np.stack([np.searchsorted(row, own) for row, own in zip(references, loss, strict=True)]).astype(float)
    view = canaries(loss, is_in, references[:, positions(count)], count, rank=rank)
    by_rank = present(Exposure().estimate(view)[0].per_example)
    extrapolated = present(ExposureSkewnormal().estimate(view)[0].per_example)
    assert np.abs(by_rank - extrapolated).mean() < 0.1
    assert np.corrcoef(by_rank, extrapolated)[0, 1] > 0.99


def test_poor_fits_do_not_count_and_are_marked() -> None:
    rng = np.random.default_rng(2)
    is_in = np.array([[True, True], [True, False]])
    good = np.sort(6 + rng.normal(size=1000))[positions(1000)]
    bad = np.sort(6 + np.where(rng.random(1000) < 0.5, -2, 2) + 0.1 * rng.normal(size=1000))[positions(1000)]
    loss = np.full((2, 2), 4.0)
    half = canaries(loss, is_in, np.stack([good, bad]), 1000)
    (e,) = ExposureSkewnormal().estimate(half)
    assert present(e.per_example_n).tolist() == [1, 1]
    found = {r.metric: r for _, r in ExposureSkewnormal().tests(half)}
    assert (found["skewnormal_fitted"].value, found["skewnormal_fitted"].n) == (0.5, 4)
    assert "exposure_extrapolated" not in found
    none = canaries(loss, is_in, np.stack([bad, bad]), 1000)
    assert list(ExposureSkewnormal().estimate(none)) == []
    marked = {r.metric: r for _, r in ExposureSkewnormal().tests(none)}["exposure_extrapolated"]
    assert math.isnan(marked.value)
    assert marked.labels == labels("fit=poor")
    constant = canaries(loss, is_in, np.full((2, 256), 6.0), 1000)
    assert {r.metric: r.value for _, r in ExposureSkewnormal().tests(constant)}["skewnormal_fitted"] == 0


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    rng = np.random.default_rng(3)
    count = 256  # every reference is stored
    references = np.sort(6 + rng.gumbel(size=(2, count)), axis=1)
    view = canaries(np.full((2, 1), 5.0), np.array([[True], [False]]), references, count)
    found = fit(references, count)
    expected = [
        float(kstest(references[t], "skewnorm", args=(found.shape[t], found.location[t], found.scale[t])).statistic)
        for t in range(2)
    ]
    row = {r.metric: r for _, r in ExposureSkewnormal().tests(view)}["skewnormal_distance"]
    assert row.value == pytest.approx(np.mean(expected), abs=1e-5)


def test_skewnormal_distance_has_an_interval_if_enough_canaries() -> None:
    rng = np.random.default_rng(5)
    for runs, m, some in ((8, 7, False), (6, 12, False), (8, 12, True)):
        quantiles = np.sort(6 + rng.normal(size=(runs, 500)), axis=1)[:, positions(500)]
        # Seen in other runs each, or all of them would be equally far.
        loss = np.where(rng.random((runs, m)) < 0.8, 6.0, np.nan)
        view = canaries(loss, coins(runs, m, rng), quantiles, 500)
        row = {r.metric: r for _, r in ExposureSkewnormal().tests(view)}["skewnormal_distance"]
        assert (row.low <= row.value <= row.high) == some
        assert np.isnan(row.low) != some


def test_margins_may_be_fitted_instead() -> None:
    rng = np.random.default_rng(4)
    is_in, margin = np.array([[True], [False]]), np.sort(-rng.normal(size=(2, 1000)))  # normal margins
    ordered = np.logaddexp(0, -margin)[:, ::-1][:, positions(1000)]
    view = canaries(np.logaddexp(0, -np.full((2, 1), 7.0)), is_in, ordered, 1000)
    (e,) = ExposureSkewnormal(scale="margin").estimate(view)
    assert e.labels == labels("scale=margin")
    assert e.value == pytest.approx(-log_ndtr(-7.0) / math.log(2), rel=0.3)


def test_only_canaries_at_the_summary() -> None:
    is_in = np.array([[True], [False]])
    view = canaries(np.full((2, 1), 4.0), is_in, np.tile(exact_quantiles(0, 6, 1, 100), (2, 1)), 100)
    for other in (
        replace(view, round=2),
        replace(view, place="others"),
        replace(view, ranked=None),
        replace(view, rank=np.full((2, 1, 1), np.nan)),
    ):
        assert list(ExposureSkewnormal().estimate(other)) == []
        assert list(ExposureSkewnormal().tests(other)) == []
