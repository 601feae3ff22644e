"""Tests of `strategies/qfedavg.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.serverapp import strategy as flwr_strategy

from fedmem.engines._flower import in_process
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.qfedavg import QFedAvg
from tests.cohorts import Cohort, by_messages, cohort, flat, models, one_round, stacked
from tests.strategies.adaptive_helpers import Stock


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def fair(there: Cohort, w: np.ndarray, q: float, lr: float) -> np.ndarray:
    """The published step, with its two sums as they stand there."""
    up, down = np.zeros_like(w), 0.0
    for model, loss in zip(there.sent, there.losses, strict=True):
        gradient = (w - flat(model)) / lr
        up += loss**q * gradient
        down += q * loss ** (q - 1) * float(gradient @ gradient) + loss**q / lr
    return w - up / down


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("lr", [0.05, 1.0])
def test_qfedavg_is_the_published_step(q: float, lr: float) -> None:
    rng = np.random.default_rng(9)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    got = flat(one_round(QFedAvg(q=q, lr=lr), there, before))
    np.testing.assert_allclose(got, fair(there, flat(before), q, lr), rtol=1e-4, atol=1e-5)
    assert q == 0 or not np.allclose(got, fair(there, flat(before), q, 2 * lr), rtol=1e-3, atol=1e-4)


def test_qfedavg_with_q_0_is_the_uniform_mean() -> None:
    rng = np.random.default_rng(10)
    before, there = models(rng, 1)[0], cohort(rng, 5)
    mean = flat(one_round(FedAvg(weighting="uniform"), there, before))
    np.testing.assert_allclose(flat(one_round(QFedAvg(q=0.0), there, before)), mean, rtol=1e-5, atol=1e-6)


def test_a_larger_q_leans_to_the_client_of_the_largest_loss() -> None:
    before, there = {"w": torch.zeros(2)}, cohort(np.random.default_rng(0), 2)
    there = replace(
        there.sending([{"w": torch.tensor([0.1, 0.0])}, {"w": torch.tensor([0.0, 0.1])}]), losses=[2.0, 0.5]
    )
    leaning = []
    for q in (0.0, 1.0, 2.0):
        hard, easy = flat(one_round(QFedAvg(q=q, lr=1.0), there, before))
        leaning.append(hard / easy)
    np.testing.assert_allclose(leaning, [1.0, 4.0, 16.0], rtol=1e-5)


@pytest.mark.parametrize("q", [0.0, 1.0, 2.0])
def test_qfedavg_agrees_with_flowers(q: float) -> None:
    rng = np.random.default_rng(11)
    before, rounds = models(rng, 1)[0], [cohort(rng, 4)]
    ours = by_messages(QFedAvg(q=q, lr=0.3), rounds, before)[0]
    theirs = by_messages(Stock(flwr_strategy.QFedAvg, client_learning_rate=0.3, q=q), rounds, before)[0]
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)
    assert theirs["layer.bias"].dtype == torch.float64


def test_client_without_finite_loss_or_model_counts_as_absent() -> None:
    rng = np.random.default_rng(12)
    before, there = models(rng, 1)[0], cohort(rng, 4)
    expected = flat(one_round(QFedAvg(), there.at([0, 2, 3]), before))
    for loss in (np.nan, np.inf):
        got = one_round(QFedAvg(), replace(there, losses=[1.0, loss, *there.losses[2:]]), before)
        silent = one_round(QFedAvg(), replace(there.at([0, 2, 3]), losses=[1.0, *there.losses[2:]]), before)
        assert np.array_equal(flat(got), flat(silent))
    broken = there.sending([m if k != 1 else {n: v / 0 for n, v in m.items()} for k, m in enumerate(there.sent)])
    assert np.array_equal(flat(one_round(QFedAvg(), broken, before)), expected)
    nobody = replace(there, losses=[np.nan] * 4)
    assert np.array_equal(flat(one_round(QFedAvg(), nobody, before)), flat(before))
    perfect = one_round(QFedAvg(), replace(there, losses=[0.0] * 4), before)
    assert np.isfinite(flat(perfect)).all()


def test_qfedavg_without_losses_is_an_error_with_a_fix() -> None:
    rng = np.random.default_rng(13)
    before, there = models(rng, 1)[0], cohort(rng, 2)
    silent = replace(stacked(1, [there], {n: v[None] for n, v in before.items()}), report={})
    with pytest.raises(ValueError, match="let clients report `train_loss`"):
        QFedAvg().rule({}, silent)
