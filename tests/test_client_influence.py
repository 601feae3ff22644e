from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from fedmem.estimators.client_influence import ClientInfluence
from fedmem.types import FINAL
from tests.banks import coins, make_view


def seen(loss, there):
    """What is said of the test loss when the models of R runs have these losses."""
    test = -np.log(np.expm1(np.repeat(loss[:, None], 3, axis=1)))
    is_in = coins(len(loss), 1, np.random.default_rng(0))
    view = make_view(np.zeros((len(loss), 1)), is_in, test=test, round=FINAL, client_in=there)
    return {r.subject: r for _, r in ClientInfluence().tests(view) if r.setting == "loss"}


def gap(loss, there):
    """The mean over clients by the definition."""
    return np.mean([loss[coin].mean() - loss[~coin].mean() for coin in there.T])


@pytest.mark.parametrize("broken", [(), (2,)])
def test_the_mean_has_the_interval_of_a_jackknife_over_runs(broken):
    rng = np.random.default_rng(1)
    there, loss = coins(12, 5, rng), 5 + rng.normal(size=12)
    diverged = np.isin(np.arange(12), broken)
    mean = seen(np.where(diverged, np.nan, loss), there)[""]
    # A run that has diverged is no run.
    loss, there = loss[~diverged], there[~diverged]
    runs = len(loss)
    without = np.array([gap(np.delete(loss, r), np.delete(there, r, axis=0)) for r in range(runs)])
    half = stdtrit(runs - 1, 0.975) * np.sqrt((runs - 1) / runs * np.square(without - without.mean()).sum())
    assert (mean.value, mean.n) == (pytest.approx(gap(loss, there)), 5)
    assert (mean.low, mean.high) == pytest.approx((mean.value - half, mean.value + half))
    assert half != pytest.approx(stdtrit(runs - 1, 0.975) * without.std() / np.sqrt(runs))  # the spread of means


@pytest.mark.parametrize(("runs", "clients", "some"), [(8, 8, True), (8, 9, False), (4, 3, True)])
def test_with_fewer_runs_than_clients_the_mean_has_no_interval(runs, clients, some):
    rng = np.random.default_rng(2)
    there = coins(runs, clients, rng)
    found = seen(5 + rng.normal(size=runs), there)
    assert np.isnan(found[""].low) != some
    assert np.isnan(found[""].high) != some
    assert np.isfinite([found[""].value, *(found[f"client {k}"].low for k in range(clients))]).all()


def test_where_nothing_varies_nothing_is_certain():
    there = coins(8, 3, np.random.default_rng(3))
    for row in seen(np.full(8, 0.3), there).values():
        assert row.value == 0
        assert np.isnan([row.low, row.high]).all()


def test_runs_that_have_all_diverged_say_nothing():
    assert seen(np.full(8, np.nan), coins(8, 3, np.random.default_rng(4))) == {}
