"""Strategies that weigh clients by who they are like, or when they were last heard, against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.strategies.foolsgold import FoolsGold
from fedmem.strategies.typicality import Typicality
from tests.strategies.strategies_helpers import one_round

# --- FoolsGold --------------------------------------------------------------------------------------------------------


# --- typicality -------------------------------------------------------------------------------------------------------


# --- rotate -----------------------------------------------------------------------------------------------------------


# --- who sends no numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [FoolsGold(), Typicality()], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_is_not_finite_counts_as_absent(strategy: Any, bad: float) -> None:
    rng = np.random.default_rng(7)
    sent, before = rng.normal(size=(6, 4)), rng.normal(size=4)
    state = strategy.state({"w": torch.zeros((1, 4))}, 6)
    kept, left = strategy.rule(state, one_round(sent[1:], before=before, clients=range(1, 6)))
    sent[0, 2] = bad
    got, later = strategy.rule(state, one_round(sent, before=before))
    assert torch.equal(got["w"], kept["w"])
    assert all(torch.equal(later[name], left[name]) for name in left)
    nobody = strategy.rule(state, one_round(np.full((3, 4), bad), before=before))[0]["w"]
    assert np.array_equal(nobody[0].numpy(), before.astype(np.float32))
