"""Selection, medians, clipping and votes against naive loops, optimality conditions and enumerable cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.strategies.bulyan import Bulyan
from fedmem.strategies.centred_clipping import CentredClipping
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.geometric_median import GeometricMedian
from fedmem.strategies.norm_clipping import NormClipping
from fedmem.strategies.sign_majority import SignMajority
from tests.strategies.strategies_helpers import aggregate, one_round

# --- Multi-Krum and Bulyan --------------------------------------------------------------------------------------------


# --- geometric median -------------------------------------------------------------------------------------------------


# --- clipping ---------------------------------------------------------------------------------------------------------


def test_a_wide_ball_clips_nothing() -> None:
    sent, before = np.random.default_rng(3).normal(size=(5, 8)), np.ones(8)
    mean = aggregate(FedAvg(weighting="uniform"), sent, before=before)
    strategy = CentredClipping(radius=1e9)
    state = strategy.state({"w": torch.ones((1, 8))}, 5)
    wide = strategy.rule(state, one_round(sent, before=before))[0]["w"][0].numpy()
    np.testing.assert_allclose(wide, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(aggregate(NormClipping(radius=1e9), sent, before=before), mean, rtol=1e-5, atol=1e-6)


# --- votes ------------------------------------------------------------------------------------------------------------


# --- who sends no numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [Bulyan(), CentredClipping(), GeometricMedian(), NormClipping(), SignMajority()], ids=str
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_is_not_finite_counts_as_absent(strategy: Any, bad: float) -> None:
    rng = np.random.default_rng(6)
    sent, before = rng.normal(size=(8, 4)), rng.normal(size=4)
    state = strategy.state({"w": torch.zeros((1, 4))}, 8)
    kept = strategy.rule(state, one_round(sent[1:], before=before, clients=range(1, 8)))[0]["w"]
    sent[0, 2] = bad
    assert torch.equal(strategy.rule(state, one_round(sent, before=before))[0]["w"], kept)
    nobody = strategy.rule(state, one_round(np.full((3, 4), bad), before=before))[0]["w"]
    assert np.array_equal(nobody[0].numpy(), before.astype(np.float32))
