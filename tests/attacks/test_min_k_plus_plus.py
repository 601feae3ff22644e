"""Tests of `fedmem/attacks/min_k_plus_plus.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedmem.attacks.min_k_plus_plus import MinKPlusPlus
from fedmem.contracts.attack import attack_declaration
from tests.attacks.membership_helpers import everything, null_aucs
from tests.banks import coins, signals


def test_score_is_the_signal_of_its_name() -> None:
    values = np.array([[-1.0, np.nan, -3.0]])
    shown = replace(
        signals(np.zeros((1, 3)), np.ones((1, 3), bool)), signals={"min_k": values + 9, "min_k_plus_plus": values}
    )
    np.testing.assert_array_equal(MinKPlusPlus().scores(shown), values)
    assert attack_declaration(MinKPlusPlus()).reads_signals == ("min_k_plus_plus",)


def test_members_have_larger_values_and_the_null_is_chance() -> None:
    rng, scored = np.random.default_rng(0), []
    for _ in range(40):
        is_in = coins(8, 20, rng)
        values = -np.exp(rng.normal(size=20)) + rng.normal(size=(8, 20))
        shown = replace(signals(values, is_in), signals={"min_k_plus_plus": values})
        scored.append((MinKPlusPlus().scores(shown), is_in))
        trained = MinKPlusPlus().scores(replace(shown, signals={"min_k_plus_plus": values + is_in}))
        assert everything(trained, is_in) > everything(scored[-1][0], is_in)
    mean, error = null_aucs(scored)
    assert abs(mean - 0.5) < 4 * error
