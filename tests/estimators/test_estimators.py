from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from fedmem.estimators.exposure import Exposure
from fedmem.estimators.memorisation import Memorisation
from tests.banks import coins, make_view
from tests.estimators.estimators_helpers import by_key
from tests.narrowing import present

# Memorisation


# Exposure


# Membership


def test_p_of_memorisation_and_exposure_finds_planted_effects() -> None:
    rng = np.random.default_rng(11)
    is_in = coins(8, 20, rng)
    for effect in (0.0, 3.0):
        margin = rng.normal(size=(8, 20)) + effect * is_in
        rank = 1 + np.floor(100 * norm.cdf(-margin))
        view = make_view(margin, is_in, rank=rank, references=100, draws=99, round_number=None)
        found = [*Memorisation().estimate(view), *Exposure().estimate(view)]
        assert [(e.p <= 0.05) == bool(effect) for e in found] == [True] * 4
        assert all(e.redeals == 99 for e in found)


def test_a_model_without_a_number_is_not_seen() -> None:
    """A run that has diverged changes no estimate: neither as a wrong answer nor as an unlikely one."""
    rng = np.random.default_rng(12)
    is_in, margin = coins(8, 6, rng), rng.normal(size=(8, 6))
    whole = by_key(Memorisation().estimate(make_view(margin, is_in)))
    more_in, more = np.vstack([is_in, is_in[:2], ~is_in[:2]]), np.vstack([margin, np.full((4, 6), np.nan)])
    found = by_key(Memorisation().estimate(make_view(more, more_in)))
    for key, e in whole.items():
        assert found[key].value == pytest.approx(e.value)
        np.testing.assert_allclose(present(found[key].per_example), present(e.per_example))
        assert present(found[key].per_example_n).tolist() == [8] * 6
