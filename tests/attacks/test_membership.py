from __future__ import annotations

import numpy as np
import pytest

from fedmem.attacks.lira import Lira
from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.rmia import Rmia
from fedmem.contracts.attack import MembershipAttack
from tests.attacks.membership_helpers import everything
from tests.banks import coins, signals


@pytest.mark.parametrize("attack", [Lira(), LossThreshold(), Rmia(), Rmia(mode="offline")])
def test_membership_attacks_keep_the_contract(attack: MembershipAttack) -> None:
    rng = np.random.default_rng(8)
    is_in, margin = coins(8, 9, rng), rng.normal(size=(8, 9))
    margin[2, 3] = np.nan
    population = np.logaddexp(0, rng.normal(size=(8, 50)))
    kept = margin.copy()
    scores = attack.scores(signals(margin, is_in, population))
    assert isinstance(attack, MembershipAttack)
    assert attack.knows
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(margin))
    np.testing.assert_array_equal(margin, kept)
    order = rng.permutation(9)
    np.testing.assert_allclose(attack.scores(signals(margin[:, order], is_in[:, order], population)), scores[:, order])
    member = margin + 3 * is_in
    assert everything(attack.scores(signals(member, is_in, population)), is_in) > 0.9
