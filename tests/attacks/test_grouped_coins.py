"""Attacks of examples that are in or out together: which read no coin of the run that they attack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedmem.attacks.confidence_series import ConfidenceSeries
from fedmem.attacks.nasr import Nasr
from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.coin_groups import not_counting_groups
from fedmem.estimators.membership import Membership
from tests.attacks.membership_helpers import granted
from tests.attacks.test_membership import ONE_MODEL, SHADOW
from tests.banks import coins

SERIES: list[MembershipAttack] = [
    ConfidenceSeries(),
    ConfidenceSeries(trained_on="other_examples"),
    Nasr(),
    Nasr(trained_on="other_runs"),
]


def reads_own_run(attack: MembershipAttack) -> bool:
    """Whether the score of an example in a run changes with the coins of other examples in that run.

    Classifiers are fitted by steps, so that smaller changes are those of where the steps end.
    """
    rng = np.random.default_rng(9)
    is_in, margin = coins(10, 9, rng), rng.normal(size=(10, 9))
    given = granted(margin, is_in, np.logaddexp(0, rng.normal(size=(10, 60))))
    names = attack_declaration(attack).reads_series
    given = replace(given, series={name: np.abs(rng.normal(size=(4, 10, 9))) for name in names})
    flipped = is_in.copy()
    flipped[3, 1:] = ~flipped[3, 1:]
    before, after = (attack.scores(replace(given, is_in=coin))[3, 0] for coin in (is_in, flipped))
    return not np.allclose(before, after, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("attack", [*ONE_MODEL, *SHADOW, *SERIES], ids=repr)
def test_attacks_that_read_coins_of_their_run_are_refused(attack: MembershipAttack) -> None:
    """The coin of another example of the group is that of the attacked one."""
    refused = [path for path, _ in not_counting_groups(Membership(attack=attack), "estimators[0]")]
    if reads_own_run(attack):
        assert refused == ["estimators[0].attack"]
    else:
        assert refused == [], "so that it may be used"
