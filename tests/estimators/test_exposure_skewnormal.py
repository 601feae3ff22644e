from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_ndtr
from scipy.stats import kstest, skewnorm

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Models, RankEvidence, View
from fedmem.contracts.evidence import ReferenceEvidence
from fedmem.contracts.measurement import FINAL
from fedmem.estimators._skew_normal import SkewNormal, fit, log_cdf, positions
from fedmem.estimators.exposure import Exposure
from fedmem.estimators.exposure_skewnormal import ExposureSkewnormal
from tests.banks import coins, make_view
from tests.labelling import labels
from tests.narrowing import present


def law(location: float, scale: float, shape: float, size: int = 1) -> SkewNormal:
    return SkewNormal(*(np.full(size, float(value)) for value in (location, scale, shape)))


def exact_quantiles(shape: float, location: float, scale: float, count: int) -> FloatArray:
    out: FloatArray = skewnorm.ppf((positions(count) + 0.625) / (count + 0.25), shape, location, scale)
    return out


def canaries(
    loss: FloatArray, is_in: BoolArray, quantiles: FloatArray, count: int, rank: FloatArray | None = None
) -> View:
    """A view of canaries with these losses (R, m), all ranked among references with these quantiles (R, 256)."""
    runs, m = loss.shape
    rank = np.ones(loss.shape) if rank is None else rank
    view = make_view(-np.log(np.expm1(loss)), is_in, rank=rank, references=count, round_number=FINAL)
    block = ReferenceEvidence(
        round=9,
        level="global",
        family="random_pattern",
        run=np.arange(runs, dtype=np.int32),
        client=np.full(runs, -1, np.int32),
        subjects=np.arange(m),
        count=count,
        less=np.zeros(loss.shape, np.int32),
        ties=np.zeros(loss.shape, np.int32),
        labels=np.array([0]),
        quantiles=quantiles[:, None].astype(np.float32),
    )
    models = Models(runs=runs, round=np.full(1, 9), client=np.full(1, -1), of=np.zeros((1, m), np.int64))
    return replace(view, ranked=RankEvidence(models=models, blocks=(block,)))


# The distribution


@pytest.mark.parametrize("shape", [-20.0, -3.0, 0.0, 0.5, 4.0, 30.0])
def test_log_cdf_agrees_with_scipy_where_scipy_has_digits(shape: float) -> None:
    x = skewnorm.ppf(np.array([1e-3, 0.01, 0.3, 0.9, 0.999]), shape, 1.5, 2.0)
    np.testing.assert_allclose(log_cdf(x, law(1.5, 2.0, shape)), skewnorm.logcdf(x, shape, 1.5, 2.0), rtol=1e-7)


def test_log_cdf_has_its_closed_forms_in_the_deep() -> None:
    z = np.array([-200.0, -38.0, -12.0, -6.0, -4.0, -3.0, -1.0])
    np.testing.assert_allclose(log_cdf(z, law(0, 1, 0)), log_ndtr(z), rtol=1e-10)
    np.testing.assert_allclose(log_cdf(z, law(0, 1, 1)), 2 * log_ndtr(z), rtol=1e-10)  # F = Φ²
    np.testing.assert_allclose(log_cdf(z, law(0, 1, -1)), log_ndtr(z) + np.log1p(1 - np.exp(log_ndtr(z))), rtol=1e-9)
    with np.errstate(divide="ignore"):
        assert np.isinf(skewnorm.logcdf(-38.0, 1))  # why it is not used


@pytest.mark.parametrize("shape", [-8.0, -2.0, 1.0, 3.0, 10.0])
def test_quantiles_of_a_skew_normal_give_it_back(shape: float) -> None:
    for count in (300, 1000, 10_000):
        found = fit(exact_quantiles(shape, 3.0, 0.7, count)[None], count)
        assert found.location[0] == pytest.approx(3.0, abs=0.005)
        assert found.scale[0] == pytest.approx(0.7, rel=0.005)
        assert found.shape[0] == pytest.approx(shape, rel=0.02)


def test_fits_of_many_samples_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    ordered = np.sort(rng.gamma(3, size=(6, 500)), axis=1)[:, positions(500)]
    together = fit(ordered, 500)
    for t in range(6):
        np.testing.assert_allclose(np.array(fit(ordered[t : t + 1], 500))[:, 0], np.array(together)[:, t])
    moved = fit(5 + 2 * ordered, 500)
    np.testing.assert_allclose(moved.location, 5 + 2 * together.location)
    np.testing.assert_allclose(moved.scale, 2 * together.scale)
    np.testing.assert_allclose(moved.shape, together.shape)


def test_what_cannot_be_fitted_has_no_law() -> None:
    line = np.linspace(0, 1, 256)
    ordered = np.stack([np.zeros(256), np.full(256, np.nan), np.append(line[:-1], np.inf), line])
    assert np.isnan(fit(ordered, 256).shape).tolist() == [True, True, True, False]


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


def test_the_distance_has_an_interval_where_there_are_enough_canaries() -> None:
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
