"""Tests of `fedmem/attacks/quantile_regression.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.quantile_regression import QuantileRegression, feature_map, margins_of
from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything
from tests.banks import coins


def drawn(
    rng: np.random.Generator, count: int, weights: FloatArray
) -> tuple[NDArray[Any], IntArray, FloatArray, FloatArray]:
    """Inputs, labels, and the mean and spread of their margins, which both depend on them."""
    inputs, labels = rng.normal(size=(count, len(weights))).astype(np.float32), rng.integers(0, 4, count)
    return inputs, labels, inputs @ weights + labels, np.exp(0.3 * inputs[:, 0])


def case(seed: int, m: int = 200, n: int = 300, runs: int = 8, effect: float = 0.0) -> Signals:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=6)
    rows, own = drawn(rng, n, weights), drawn(rng, m, weights)
    is_in = coins(runs, m, rng)
    margin = own[2] + own[3] * (rng.normal(size=(runs, m)) + effect * is_in)
    losses = np.logaddexp(0, -rows[2] - rows[3] * rng.normal(size=(runs, n)))
    return Signals(
        margin=margin,
        is_in=is_in,
        population=losses[None],
        model=np.zeros(m, np.int64),
        labels=own[1],
        population_labels=rows[1],
        inputs=own[0],
        population_inputs=rows[0],
    )


def test_share_above_the_quantile_is_the_rate() -> None:
    """Of 1600 rows that no head was fitted to, and that no model trains on; the fits themselves vary too."""
    scores = np.concatenate([QuantileRegression(features=6).scores(case(seed)).ravel() for seed in range(3)])
    for rate in (0.5, 0.1, 0.01):
        share = (scores > norm.isf(rate)).mean()
        assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / 1600)


def test_membership_is_found_that_difficulty_hides() -> None:
    whole = case(4, effect=1.5)
    found = everything(QuantileRegression(features=6).scores(whole), whole.is_in)
    ideal = norm.cdf(1.5 / np.sqrt(2))
    assert everything(LossThreshold().scores(whole), whole.is_in) < ideal - 0.12
    assert ideal - 0.04 < found < ideal + 0.02


def test_no_audit_example_enters_the_fit() -> None:
    whole = case(5, m=30)
    scores = QuantileRegression().scores(whole)
    assert whole.inputs is not None
    assert whole.labels is not None
    part = replace(whole, margin=whole.margin[:, :9], is_in=whole.is_in[:, :9], model=np.zeros(9, np.int64))
    half = replace(part, inputs=whole.inputs[:9], labels=whole.labels[:9])
    np.testing.assert_allclose(QuantileRegression().scores(half), scores[:, :9])


def test_too_few_rows_or_none_score_nothing() -> None:
    whole = case(6, m=5, n=49)
    assert np.isnan(QuantileRegression().scores(whole)).all()
    assert np.isnan(QuantileRegression().scores(Signals(margin=whole.margin, is_in=whole.is_in))).all()
    assert np.isfinite(QuantileRegression().scores(case(6, m=5, n=50))).all()


def test_features_of_texts_are_counts_of_tokens() -> None:
    tokens = np.random.default_rng(8).integers(0, 5, (60, 7))
    features = feature_map(tokens, None, 3)
    order = tokens[:, ::-1]
    np.testing.assert_allclose(features(order, None), features(tokens, None))
    assert features(np.full((1, 7), 9), None).shape == (1, 4), "tokens that the population lacks are not counted"


def test_margins_come_back_from_losses() -> None:
    margin = np.array([-30.0, -1.0, 0.0, 5.0, 30.0])
    np.testing.assert_allclose(margins_of(np.logaddexp(0, -margin)), margin, rtol=1e-6)
