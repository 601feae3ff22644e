"""Tests of `fedmem/attacks/confidence_series.py`."""

from __future__ import annotations

import numpy as np

from fedmem.attacks.confidence_series import ConfidenceSeries
from fedmem.attacks.lira import Lira
from fedmem.contracts.attack import Signals
from fedmem.estimators.membership import Membership
from tests.attacks.membership_helpers import everything
from tests.banks import coins
from tests.estimators.series_helpers import bank_of_margins, summaries


def test_the_series_has_what_the_last_margin_has_not() -> None:
    """Membership shows in early rounds alone: LiRA guesses, the series does not."""
    rng = np.random.default_rng(0)
    is_in = coins(16, 30, rng)
    margin = 3 * rng.normal(size=30) + rng.normal(size=(5, 16, 30))
    margin[:3] += 1.5 * is_in
    given = Signals(margin=margin[-1], is_in=is_in, series={"margin": margin})
    assert everything(ConfidenceSeries().scores(given), is_in) > 0.9
    assert everything(ConfidenceSeries(length=2).scores(given), is_in) < 0.6
    assert everything(Lira().scores(given), is_in) < 0.6


def test_scores_under_coins_are_those_of_the_attack() -> None:
    rng = np.random.default_rng(1)
    is_in, again = coins(8, 6, rng), coins(8, 6, rng)
    series = rng.normal(size=(4, 8, 6)) + is_in
    for attack in (ConfidenceSeries(), ConfidenceSeries(trained_on="other_examples")):
        given = Signals(margin=series[-1], is_in=is_in, series={"margin": series})
        dealt = Signals(margin=series[-1], is_in=again, series={"margin": series})
        np.testing.assert_array_equal(attack.scores_under_coins(given)(again), attack.scores(dealt))


def test_the_summary_has_a_null_and_a_p() -> None:
    rng = np.random.default_rng(2)
    is_in = coins(8, 10, rng)
    whole = rng.normal(size=(6, 8, 10)) + 1.5 * is_in
    found = Membership(attack=ConfidenceSeries()).estimate(summaries(bank_of_margins(whole, is_in))[""])
    (area,) = [e for e in found if e.metric == "auc"]
    assert area.value > 0.8
    assert 0.4 < area.null < 0.55
    assert area.p == 2 / 51
