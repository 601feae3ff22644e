"""Tests of `fedmem/estimators/adjusted_memorisation.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.estimates import count_clusters, estimates_in_view
from fedmem.estimation.two_way import interval
from fedmem.estimators.adjusted_memorisation import AdjustedMemorisation, mean_square_error
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_view

M = 24
PLACE = np.random.default_rng(1).normal(size=(M, 3)).astype(np.float32)


def bank_view(seed: int, *, strength: float = 1.5, own: float = 1.0, runs: int = 16) -> View:
    """Near examples of the same label help each other."""
    rng = np.random.default_rng(seed)
    is_in = coins(runs, M, rng)
    distance = np.square(PLACE[:, None] - PLACE).sum(-1) + 1e9 * np.eye(M)
    margin = (is_in - 0.5) @ np.exp(-distance) * strength + own * is_in + 0.3 * rng.normal(size=is_in.shape)
    view = make_view(margin, is_in, kind=["typical"] * M, round_number=None, draws=0)
    examples = replace(view.audit.examples, inputs=PLACE)
    return replace(view, audit=replace(view.audit, examples=examples))


def by_probability(view: View) -> Estimate:
    return estimates_in_view(AdjustedMemorisation(), view)[1]


def test_it_estimates_memorisation_with_less_noise() -> None:
    plain, adjusted, ratios = [], [], []
    for seed in range(12):
        view = bank_view(seed)
        plain.append(estimates_in_view(Memorisation(), view)[1].per_example)
        adjusted.append(by_probability(view).per_example)
        ratios.append(AdjustedMemorisation().tests(view)[1][1].value)
    spread = [np.std(np.array(each, float), axis=0).mean() for each in (plain, adjusted)]
    assert spread[1] < 0.9 * spread[0]
    assert np.mean(ratios) == pytest.approx(spread[1] / spread[0], abs=0.1), "the reported ratio is the real one"
    assert np.mean(np.array(adjusted, float)) == pytest.approx(np.mean(np.array(plain, float)), abs=0.01)


@pytest.mark.parametrize("strength", [0.0, 1.5])
def test_false_alarms_are_as_rare_as_stated(strength: float) -> None:
    """No example changes what a model says about itself."""
    alarms = []
    for seed in range(36):
        view = bank_view(seed, strength=strength, own=0.0)
        found = by_probability(view)
        low, high = interval(found.value, found.influence, count_clusters(view, found), found.bounds)
        alarms.append(not low <= 0 <= high)
    assert np.mean(alarms) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 36)


def test_the_error_is_that_of_welch() -> None:
    rng = np.random.default_rng(0)
    values, is_in = rng.normal(size=(8, 3)), coins(8, 3, rng)
    expected = [v[c].var(ddof=1) / 4 + v[~c].var(ddof=1) / 4 for v, c in zip(values.T, is_in.T, strict=True)]
    assert mean_square_error(values, is_in) == pytest.approx(np.mean(expected))


def test_only_the_summary_has_it() -> None:
    view = replace(bank_view(0), round=1)
    assert not AdjustedMemorisation().estimate(view)
    assert not AdjustedMemorisation().tests(view)
    assert {e.metric for e in AdjustedMemorisation().estimate(bank_view(0))} == {"memorisation_adjusted"}
