"""Tests of `strategies/fedexp.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedmem.engines._flower import in_process
from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fedexp import FedExP
from tests.cohorts import cohort, flat, models, one_round


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


@pytest.mark.parametrize("weighting", ["size", "uniform"])
@pytest.mark.parametrize("agreement", [0.0, 3.0])
def test_fedexp_is_the_published_step(weighting: Any, agreement: float) -> None:
    rng = np.random.default_rng(7)
    before, there = models(rng, 1)[0], replace(cohort(rng, 6), sizes=[10, 12, 14, 16, 18, 20])
    common = models(rng, 1)[0]
    there = there.sending([{n: v + agreement * common[n] for n, v in m.items()} for m in there.sent])
    got = flat(one_round(FedExP(weighting=weighting, epsilon=0.5), there, before))
    w, a = flat(before), np.array(there.sizes, dtype=float) if weighting == "size" else np.ones(6)
    a /= a.sum()
    u = np.stack([flat(model) - w for model in there.sent])
    d = a @ u
    ratio = float(a @ (u**2).sum(1)) / (2 * (float(d @ d) + 0.5))
    assert (ratio > 1) == (agreement == 0)
    np.testing.assert_allclose(got, w + max(1.0, ratio) * d, rtol=1e-5, atol=1e-5)
    # the factor two left out, or the smaller of the two taken, would be seen
    assert not np.allclose(got, w + max(1.0, 2 * ratio) * d, rtol=1e-3)
    assert not np.allclose(got, w + min(1.0, ratio) * d, rtol=1e-3)


def test_fedexp_without_disagreement_is_fedavg() -> None:
    rng = np.random.default_rng(8)
    before, there = models(rng, 1)[0], cohort(rng, 4)
    near = [{n: before[n] + 1.0 + 0.1 * (v - before[n]) for n, v in m.items()} for m in there.sent]
    mean = flat(one_round(FedAvg(weighting="uniform"), there.sending(near), before))
    np.testing.assert_allclose(flat(one_round(FedExP(), there.sending(near), before)), mean, rtol=1e-6, atol=1e-6)
