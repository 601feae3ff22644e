"""Tests of `fedmem/attacks/reference_model.py`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from fedmem.attacks.loss_threshold import LossThreshold
from fedmem.attacks.reference_model import ReferenceModel
from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals
from tests.attacks.membership_helpers import everything, null_aucs
from tests.banks import coins, signals


def shown(loss: FloatArray, reference: FloatArray, is_in: BoolArray | None = None) -> Signals:
    """What the attack sees of models with these losses."""
    with np.errstate(divide="ignore"):
        margin = np.where(loss == 0, np.inf, -np.log(np.expm1(loss)))
    coin: BoolArray = np.ones(loss.shape, dtype=bool) if is_in is None else is_in
    return replace(signals(margin, coin), initial=reference)


def test_scores_by_hand() -> None:
    whole = shown(np.array([[1.0, 2.0]]), np.array([[4.0, 2.0]]))
    np.testing.assert_allclose(ReferenceModel().scores(whole), [[3.0, 0.0]])
    np.testing.assert_allclose(ReferenceModel(by="ratio").scores(whole), [[-0.25, -1.0]])


def test_reference_without_loss_is_decided() -> None:
    whole = shown(np.array([[0.0, 1.0, 0.0, np.nan]]), np.array([[0.0, 0.0, 2.0, 1.0]]))
    found = ReferenceModel(by="ratio").scores(whole)[0]
    assert found[:3].tolist() == [-1.0, -math.inf, 0.0]
    assert np.isnan(found[3])
    assert np.isnan(ReferenceModel().scores(whole)[0, 3])
    unread = ReferenceModel().scores(shown(np.array([[1.0]]), np.array([[np.nan]])))
    assert np.isnan(unread).all()


def test_equal_losses_give_equal_scores() -> None:
    whole = shown(np.full((2, 3), 0.7), np.full((2, 3), 1.9))
    for by in ("difference", "ratio"):
        assert len(np.unique(ReferenceModel(by=by).scores(whole))) == 1


@pytest.mark.parametrize("by", ["difference", "ratio"])
def test_difficulty_at_the_start_no_longer_hides_members(by: Literal["difference", "ratio"]) -> None:
    """Losses from .5 to 8 nats at a pre-trained model; training on an example takes a tenth off."""
    rng, areas, null = np.random.default_rng(1), [], []
    for _ in range(30):
        is_in = coins(8, 30, rng)
        start = np.broadcast_to(np.exp(rng.uniform(-0.7, 2.1, size=30)), (8, 30))
        later = start * (0.8 + 0.02 * rng.normal(size=(8, 30)))
        null.append((ReferenceModel(by=by).scores(shown(later, start, is_in)), is_in))
        trained = np.where(is_in, 0.9 * later, later)
        whole = shown(trained, start, is_in)
        areas.append(
            (everything(ReferenceModel(by=by).scores(whole), is_in), everything(LossThreshold().scores(whole), is_in))
        )
    calibrated, plain = np.mean(areas, axis=0)
    assert calibrated > plain + 0.03
    assert calibrated > (0.95 if by == "ratio" else 0.55)
    mean, error = null_aucs(null)
    assert abs(mean - 0.5) < 4 * error
