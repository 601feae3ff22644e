"""Tests of `strategies/dp_fedavg.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.engines._flower import in_process
from fedmem.strategies.dp_fedavg import DpFedAvg
from fedmem.strategies.fedavg import FedAvg
from tests.cohorts import flat, one_round, stacked
from tests.strategies.private_helpers import both, made


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def naive(before: Any, there: Any, clip: float, weights: Any) -> Any:
    """The clipped sum, one client at a time."""
    total = np.zeros(len(flat(before)))
    for model, weight in zip(there.sent, weights, strict=True):
        update = flat(model) - flat(before)
        total += weight * update * min(1.0, clip / np.linalg.norm(update))
    return total


@pytest.mark.parametrize(("clip", "cap"), [(0.5, None), (1e6, None), (3.0, 40), (3.0, 1)])
def test_the_clipped_sum_over_a_fixed_number(clip: float, cap: int | None) -> None:
    before, there = made()
    weights = [1.0 if cap is None else min(size / cap, 1.0) for size in there.sizes]
    after = one_round(DpFedAvg(clip=clip, noise_multiplier=0.0, expected_cohort_size=7.0, cap=cap), there, before)
    np.testing.assert_allclose(
        flat(after) - flat(before), naive(before, there, clip, weights) / 7, rtol=1e-4, atol=1e-6
    )


def test_dp_fedavg_without_clipping_is_the_uniform_mean() -> None:
    before, there = made()
    private = one_round(DpFedAvg(clip=1e9, noise_multiplier=0.0, expected_cohort_size=5.0), there, before)
    mean = one_round(FedAvg(weighting="uniform"), there, before)
    np.testing.assert_allclose(flat(private), flat(mean), rtol=1e-5, atol=1e-6)


@both
@pytest.mark.parametrize("size", [1, 10**6])
@pytest.mark.parametrize("far", [0.0, 1.0, 1e6, math.inf, math.nan])
def test_one_client_moves_the_sum_by_no_more_than_the_clip(strategy: Any, size: int, far: float) -> None:
    """Whatever it sends and however many rows it says it has: Flower's weights let it move nine times as much."""
    before, there = made(4)
    longest = {name: value + far for name, value in before.items()}
    changed = replace(there, sent=[*there.sent[:3], longest], sizes=[*there.sizes[:3], size])
    gone = there.at([0, 1, 2])
    with_it, without = (one_round(strategy, one, before) for one in (changed, gone))
    # the noise is the same
    gap = float(np.linalg.norm(flat(with_it) - flat(without)))
    assert gap <= 0.5 / 4 * (1 + 1e-4)
    assert gap > 0 or far in (0.0, math.inf) or math.isnan(far)
    other = one_round(strategy, there, before)
    assert float(np.linalg.norm(flat(with_it) - flat(other))) <= 2 * 0.5 / 4 * (1 + 1e-4)


def test_a_share_of_the_cohort_would_not_be_bounded() -> None:
    """So the test above can fail: with weights by size, one client of 1000 rows among small ones moves nearly all."""
    before, there = made(4)
    sizes = [10, 10, 10, 1000]
    longest = {name: value + 0.5 / math.sqrt(15) for name, value in before.items()}
    changed = replace(there, sent=[before, before, before, longest], sizes=sizes)
    moved = flat(one_round(FedAvg(), changed, before)) - flat(before)
    assert np.linalg.norm(moved) > 3 * 0.5 / 4


def test_noise_in_a_users_own_app_is_not_reproducible() -> None:
    before, there = made(3)
    round_number = replace(stacked(1, [there], {name: value[None] for name, value in before.items()}), generators=None)
    strategy = DpFedAvg()
    assert not torch.equal(
        strategy.rule({}, round_number)[0]["layer.bias"], strategy.rule({}, round_number)[0]["layer.bias"]
    )
