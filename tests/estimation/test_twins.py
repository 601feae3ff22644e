"""Tests of `fedmem/estimation/twins.py`, and of all that must know that twins share their coins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.coin_law import CoinLaw
from fedmem.contracts.estimator import Estimate, Estimator, View
from fedmem.estimation.estimates import count_clusters, estimates_in_view
from fedmem.estimation.randomisation import deals_of, num_redeals, permute_coins
from fedmem.estimation.rank_agreement import Halves
from fedmem.estimation.twins import average_twins, coins_of_rows, over_coin_rows, sets_without_twins
from fedmem.estimation.two_way import half_width, of_difference, of_ins
from fedmem.estimators.membership import Membership
from fedmem.estimators.memorisation import Memorisation
from fedmem.federation.coin_draws import flip
from tests.banks import coins, make_audit, make_view

ROWS, TWINS, M = 8, 2, 12
COIN_ROW = np.arange(ROWS * TWINS) % ROWS


def twins_audit(is_in: BoolArray, coin_row: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = COIN_ROW) -> AuditSet:
    audit = make_audit(["typical"] * is_in.shape[1], [0] * is_in.shape[1], is_in)
    return replace(audit, coin_row=coin_row)


def null_view(
    seed: int, *, rows: int = ROWS, m: int = M, noise: float = 0.3, draws: int = 99, common: float = 0.5
) -> View:
    """Twins that say nearly the same; no example changes anything. Pairs of a coin row and an example differ."""
    rng = np.random.default_rng(seed)
    is_in = np.tile(coins(rows, m, rng), (TWINS, 1))
    shared = rng.normal(size=(rows, m)) + common * rng.normal(size=(rows, 1))
    margin = np.tile(shared, (TWINS, 1)) + noise * rng.normal(size=is_in.shape)
    view = make_view(margin, is_in, kind=["typical"] * m, round_number=None, draws=0)
    audit = replace(view.audit, coin_row=np.arange(rows * TWINS) % rows)
    return replace(view, audit=audit, redeals=permute_coins(audit, draws, np.random.default_rng(seed)))


def without_twins(view: View) -> View:
    """The same where nobody knows that runs are twins."""
    audit = replace(view.audit, coin_row=None)
    redeals = permute_coins(audit, len(view.redeals.coins) - 1, np.random.default_rng(1))
    return replace(view, audit=audit, redeals=redeals)


def by_probability(view: View) -> Estimate:
    return estimates_in_view(Memorisation(), view)[1]


def test_sets_have_one_of_all_twins_each() -> None:
    audit = twins_audit(np.zeros((6, 1), dtype=bool), np.array([4, 7, 4, 7, 9, 9]))
    assert [runs.tolist() for runs in sets_without_twins(audit)] == [[0, 1, 4], [2, 3, 5]]
    assert (audit.num_coin_rows, audit.coin_rows.tolist()) == (3, [0, 1, 0, 1, 2, 2])
    values = np.arange(12.0).reshape(6, 2)
    values[0, 0] = np.nan
    assert average_twins(values, audit).tolist() == [[4.0, 3.0], [4.0, 5.0], [9.0, 10.0]]


def test_without_twins_nothing_is_changed() -> None:
    rng = np.random.default_rng(0)
    audit = make_audit(["typical"] * M, [0] * M, coins(ROWS, M, rng))
    values = rng.normal(size=(ROWS, M))
    parts = of_difference(values, audit.is_in)
    assert average_twins(values, audit) is values
    assert coins_of_rows(audit) is audit.is_in
    assert over_coin_rows(parts, audit) is parts
    assert [runs.tolist() for runs in sets_without_twins(audit)] == [list(range(ROWS))]


def test_coins_of_twins_are_dealt_together() -> None:
    audit = null_view(0).audit
    redeals = permute_coins(audit, 20, np.random.default_rng(1))
    assert (redeals.coins[:, :ROWS] == redeals.coins[:, ROWS:]).all()
    assert (redeals.coins.sum(1) == ROWS).all()
    assert (redeals.coins[1:] != redeals.coins[:1]).any()
    for shuffle in redeals.shuffles:
        assert sorted(shuffle.tolist()) == list(range(2 * ROWS))
        assert (shuffle[:ROWS] % ROWS == shuffle[ROWS:] % ROWS).all()
    assert num_redeals(permute_coins(audit, 500, np.random.default_rng(1)), np.array([0])) == 69, "8 over 4, less one"
    every = deals_of(permute_coins(audit, 500, np.random.default_rng(1)), np.array([0]))
    assert every.shape == (70, 16, 1)
    assert (every[:, :ROWS] == every[:, ROWS:]).all()


def test_p_of_twins_holds_its_level_and_that_of_runs_does_not() -> None:
    views = [null_view(seed) for seed in range(150)]
    found = np.array([[by_probability(view).p, by_probability(without_twins(view)).p] for view in views])
    rejected = (found <= 0.05).mean(0)
    assert rejected[0] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert rejected[1] > 0.12, "the test can fail"


def covers(view: View) -> bool:
    """Whether the interval of the mean margin over in runs contains 0, its expectation."""
    margin, is_in = view.margin[:, 0], view.audit.is_in
    value = float(np.mean([column[coin].mean() for column, coin in zip(margin.T, is_in.T, strict=True)]))
    parts = over_coin_rows(of_ins(margin, is_in), view.audit)
    return abs(value) <= half_width(value, parts, view.audit.num_coin_rows)


def test_intervals_of_twins_cover_and_those_of_runs_do_not() -> None:
    views = [null_view(seed, rows=12, m=20, draws=0, common=2.0) for seed in range(200)]
    known = np.mean([covers(view) for view in views])
    ignored = np.mean([covers(without_twins(view)) for view in views])
    assert known >= 0.92
    assert ignored < 0.86, "the test can fail"


def test_interval_of_twins_without_noise_is_that_of_one_of_them() -> None:
    """Exact copies of runs are no further evidence."""
    view = null_view(3, noise=0.0, draws=0)
    alone = make_view(view.margin[:ROWS], view.audit.is_in[:ROWS], kind=["typical"] * M, round_number=None)
    twins, single = by_probability(view), by_probability(alone)
    assert twins.value == pytest.approx(single.value)
    np.testing.assert_allclose(twins.influence.cells, single.influence.cells, atol=1e-12)
    assert count_clusters(view, twins) == count_clusters(alone, single) == ROWS
    correct = [estimates_in_view(Memorisation(), each)[0] for each in (view, alone)]
    ends = [[each.per_example_low, each.per_example_high] for each in correct]
    np.testing.assert_allclose(np.array(ends[0], float), np.array(ends[1], float))


def auc_of(view: View) -> float:
    estimator: Estimator = Membership(attack=Lira())
    return next(e.value for e in estimates_in_view(estimator, view) if e.metric == "auc")


def test_no_run_is_attacked_with_the_help_of_its_twin() -> None:
    """A twin has the coins of the attacked run, so that as a shadow run it would give them away."""
    views = [null_view(seed, rows=12, m=30, draws=0) for seed in range(10)]
    assert np.mean([auc_of(view) for view in views]) == pytest.approx(0.49, abs=0.03)
    assert np.mean([auc_of(without_twins(view)) for view in views]) > 0.55, "the test can fail"


def test_halves_do_not_divide_twins() -> None:
    audit = null_view(0).audit
    halves = Halves.draw(audit.is_in, 30, np.random.default_rng(0), audit.coin_rows)
    assert (halves.first[:, :ROWS] == halves.first[:, ROWS:]).all()
    assert (halves.first.sum(1) == ROWS).all()
    plain: FloatArray = Halves.draw(audit.is_in, 30, np.random.default_rng(0)).first.astype(np.float64)
    assert (plain[:, :ROWS] != plain[:, ROWS:]).any()


@pytest.mark.parametrize("twins", [1, 2])
@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_intervals_hold_their_level_at_another_rate(rate: float, twins: int) -> None:
    """Values of examples that differ, in runs that differ: of the mean effect over other examples like these."""
    rng, rows, m = np.random.default_rng(int(100 * rate) + twins), 12, 24
    covered = []
    for _ in range(250):
        is_in = np.tile(flip(rows, m, rng, rate), (twins, 1))
        effects = 0.4 + 0.3 * rng.normal(size=m)
        margin = np.tile(rng.normal(size=(rows, 1)) + rng.normal(size=(rows, m)), (twins, 1))
        margin = margin + effects * is_in + 0.3 * rng.normal(size=margin.shape)
        audit = replace(
            twins_audit(is_in, np.arange(rows * twins) % rows) if twins > 1 else twins_audit(is_in, np.arange(rows)),
            coin_law=CoinLaw(law="rate", rate=rate),
        )
        parts = over_coin_rows(of_difference(margin, is_in), audit)
        value = float(np.mean([margin[c, j].mean() - margin[~c, j].mean() for j, c in enumerate(is_in.T)]))
        half = half_width(value, parts, min(rows, m))
        covered.append(abs(value - 0.4) <= half)
    assert np.mean(covered) >= 0.93
    assert np.mean(covered) <= 0.995, "not too wide either"
