"""Tests of `fedmem/estimators/poisoning.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.estimator import Estimate, View
from fedmem.estimation.estimates import interval_of
from fedmem.estimation.statistics import mean
from fedmem.estimation.two_way import interval
from fedmem.estimators import poisoning
from fedmem.estimators.poisoning import Poisoning
from tests.banks import coins, make_view
from tests.estimators.estimators_helpers import by_key
from tests.narrowing import present

N = 10
"""Targets, of a kind `typical`; as many poison rows aim at them, in the opposite order."""

KINDS = ["typical"] * N + ["privacy_poison"] * N


def view_of(margin: FloatArray, is_in: BoolArray, **changes: Any) -> View:
    view = make_view(margin, is_in, kind=KINDS, **changes)
    aims = np.concatenate([np.full(N, -1), np.arange(N)[::-1]])
    return replace(view, audit=replace(view.audit, aims_at=aims))


def full_coins(runs: int, seed: int = 0) -> BoolArray:
    """Coins with every combination of a target and its poison."""
    rng = np.random.default_rng(seed)
    while True:
        is_in = coins(runs, 2 * N, rng)
        t, p = is_in[:, :N], is_in[:, N:][:, ::-1]
        if all((a & b).any(0).all() for a in (t, ~t) for b in (p, ~p)):
            return is_in


def estimates(view: View) -> dict[tuple[str, str], Estimate]:
    return {key[:2]: value for key, value in by_key(Poisoning().estimate(view)).items()}


def test_planted_effects_are_found_in_closed_form() -> None:
    is_in = full_coins(16)
    t, p = is_in[:, :N], is_in[:, N:][:, ::-1]
    probability = 0.3 + 0.1 * t - 0.2 * p + 0.4 * (t & p)
    margin = np.zeros(is_in.shape)
    margin[:, :N] = np.log(probability / (1 - probability))
    found = estimates(view_of(margin, is_in))
    values = {name: found[name, "probability"].value for name in
              ("memorisation_with_poison", "memorisation_without_poison", "poisoning")}  # fmt: skip
    assert values == pytest.approx(
        {"memorisation_with_poison": 0.5, "memorisation_without_poison": 0.1, "poisoning": 0.4}
    )
    assert found["poison_push", ""].value == pytest.approx(-0.2)
    assert found["poisoning", ""].value == pytest.approx(1.0), "right with both alone: .6 is above a half, .4 is not"
    assert {e.kind for e in found.values()} == {"typical"}
    assert {tuple(present(e.examples)) for e in found.values()} == {tuple(range(N))[::-1]}, "in the order of the poison"
    assert found["auc_with_poison", ""].value == found["auc_without_poison", ""].value == 1.0
    assert found["poisoning_auc", ""].value == 0.0


def test_a_push_of_margins_alone_changes_no_area() -> None:
    is_in = full_coins(16)
    t, p = is_in[:, :N], is_in[:, N:][:, ::-1]
    margin = np.zeros(is_in.shape)
    margin[:, :N] = 4.0 + 1.0 * t - 4.0 * p + np.random.default_rng(0).integers(3, size=(16, 1))
    found = estimates(view_of(margin, is_in))
    assert found["poisoning", "probability"].value > 0.05, "near 1 there is little room for memorisation"
    margin[:, :N] = 1.0 * t - 4.0 * p
    again = estimates(view_of(margin, is_in))
    assert again["poisoning_auc", ""].value == 0.0
    assert again["poisoning", "probability"].value == pytest.approx(
        np.ptp(1 / (1 + np.exp([4.0, 3.0]))) - np.ptp(1 / (1 + np.exp([0.0, -1.0])))
    )


def test_areas_are_those_of_single_examples() -> None:
    rng = np.random.default_rng(1)
    is_in = full_coins(16)
    margin = rng.integers(4, size=is_in.shape).astype(float)  # with ties
    found = estimates(view_of(margin, is_in))
    for name, side in (("auc_with_poison", True), ("auc_without_poison", False)):
        expected = []
        for j in range(N):
            p = is_in[:, 2 * N - 1 - j] == side
            ins, outs = margin[p & is_in[:, j], j], margin[p & ~is_in[:, j], j]
            expected.append(np.mean([(a > b) + (a == b) / 2 for a in ins for b in outs]))
        e = found[name, ""]
        np.testing.assert_allclose(present(e.per_example)[np.argsort(present(e.examples))], expected)
        assert e.null == 0.5
    gap = found["auc_with_poison", ""].value - found["auc_without_poison", ""].value
    assert found["poisoning_auc", ""].value == pytest.approx(gap)


def test_what_has_no_cell_is_left_out() -> None:
    is_in = full_coins(8)
    margin = np.random.default_rng(2).normal(size=is_in.shape)
    margin[is_in[:, 0], 0] = np.nan  # never observed as a member
    margin[0, 1] = np.inf  # a model that has diverged
    found = estimates(view_of(margin, is_in, round_number=None))
    assert 0 not in present(found["poisoning", ""].examples)
    assert found["poisoning", ""].n in (N - 2, N - 1)
    assert all(np.isfinite(e.value) for e in found.values())
    assert estimates(view_of(np.full(is_in.shape, np.nan), is_in)) == {}
    unaimed = view_of(margin, is_in)
    assert Poisoning().estimate(replace(unaimed, audit=replace(unaimed.audit, aims_at=None))) == ()


def test_p_are_those_of_the_summary_and_of_poison_coins() -> None:
    is_in = full_coins(16)
    t, p = is_in[:, :N], is_in[:, N:][:, ::-1]
    noise = np.random.default_rng(3).normal(size=is_in.shape)
    margin = noise.copy()
    margin[:, :N] += 3 * t - 6 * p
    found = estimates(view_of(margin, is_in, round_number=None, draws=99))
    assert found["poison_push", ""].p <= 0.02
    assert found["memorisation_with_poison", "probability"].p <= 0.02
    assert np.isnan(found["poisoning_auc", ""].p)
    # the same effects with the coins of other poison are none of this poison
    shuffled = noise.copy()
    shuffled[:, :N] += 3 * t - 6 * is_in[:, N:]
    assert estimates(view_of(shuffled, is_in, round_number=None, draws=99))["poison_push", ""].p > 0.02
    assert all(np.isnan(e.p) for e in estimates(view_of(margin, is_in)).values()), "in rounds there is no p"


@pytest.mark.slow
def test_intervals_cover_nothing_where_poison_adds_nothing() -> None:
    rng = np.random.default_rng(4)
    covered: dict[str, list[bool]] = {}
    for _ in range(200):
        is_in = coins(16, 2 * N, rng)
        margin = rng.normal(size=is_in.shape) + 0.5 * rng.normal(size=(16, 1))
        margin[:, :N] += 1.0 * is_in[:, :N]
        for (name, label), e in estimates(view_of(margin, is_in)).items():
            if name in ("poisoning_auc", "poison_push") or (name, label) == ("poisoning", "probability"):
                low, high = interval(e.value, e.influence, e.n, e.bounds)
                covered.setdefault(name, []).append(low <= 0 <= high)
    assert {name: float(np.mean(rows)) >= 0.89 for name, rows in covered.items()} == dict.fromkeys(covered, True)
    assert len(covered) == 3


def test_models_of_a_place_are_averaged() -> None:
    rng = np.random.default_rng(5)
    is_in = full_coins(16)
    margin = rng.normal(size=(16, 2, 2 * N))
    several, single = (
        {key: e.value for key, e in estimates(view_of(values, is_in, correct=hits)).items()}
        for values, hits in ((margin, margin > 0), (mean(margin, axis=1), mean((margin > 0).astype(float), axis=1)))
    )
    assert several["poisoning", ""] == pytest.approx(single["poisoning", ""])
    assert several["auc_with_poison", ""] == pytest.approx(single["auc_with_poison", ""])


def test_the_interval_of_added_area_is_that_of_both_sides() -> None:
    is_in = full_coins(16, seed=3)
    margin = np.random.default_rng(3).normal(size=is_in.shape)
    found = estimates(view_of(margin, is_in))
    names = ("auc_with_poison", "auc_without_poison", "poisoning_auc")
    of_with, without, added = (found[name, ""].influence for name in names)
    assert added.cells == pytest.approx(of_with.cells - without.cells)
    assert added.examples == pytest.approx(of_with.examples - without.examples)


def test_deviations_of_an_area_are_widened_by_their_number() -> None:
    """By loops: what a run adds to the area of its example, times the factor for a mean of so few runs."""
    is_in, runs = full_coins(16, seed=6), 16
    margin = np.random.default_rng(6).integers(5, size=is_in.shape).astype(float)  # with ties
    cells = estimates(view_of(margin, is_in))["auc_with_poison", ""].influence.cells
    for j in range(N):
        p, x = is_in[:, 2 * N - 1 - j], margin[:, j]
        sides = [np.flatnonzero(p & (is_in[:, j] == side)) for side in (True, False)]
        won = np.array([[(x[a] > x[b]) + (x[a] == x[b]) / 2 for b in sides[1]] for a in sides[0]])
        expected = np.zeros(runs)
        for side, share in zip(sides, (won.mean(1), won.mean(0)), strict=True):
            n = len(side)
            if n > 1:
                expected[side] = (share - won.mean()) / n / N * n / (n - 1) * np.sqrt((runs - 1) / runs)
        np.testing.assert_allclose(cells[:, j], expected, atol=1e-12)


@pytest.mark.slow
def test_intervals_of_20_targets_and_16_runs_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any effect, and with variation of runs and targets. Negative covariances by chance would narrow them."""

    def coverage() -> dict[str, float]:
        rng, covered = np.random.default_rng(5), dict[str, list[bool]]()
        for _ in range(150):
            is_in = coins(16, 40, rng)
            margin = rng.normal(size=is_in.shape) + 0.5 * rng.normal(size=(16, 1)) + 0.5 * rng.normal(size=40)
            view = make_view(margin, is_in, kind=["typical"] * 20 + ["privacy_poison"] * 20, draws=2)
            aims = np.concatenate([np.full(20, -1), np.arange(20)])
            view = replace(view, audit=replace(view.audit, aims_at=aims))
            for e in Poisoning().estimate(view):
                low, high = interval_of(view, e)
                covered.setdefault(f"{e.metric} {e.labels.text('statistic')}", []).append(low <= e.null <= high)
        return {name: float(np.mean(rows)) for name, rows in covered.items()}

    shares = coverage()
    assert len(shares) == 10
    assert {name: share for name, share in shares.items() if share < 0.93} == {}
    monkeypatch.setattr(poisoning, "without_negative_covariance", lambda parts: parts)
    assert np.mean(list(coverage().values())) < np.mean(list(shares.values())) - 0.01
