"""Server optimisers and reweighted means against plain loops in float64, and against what would be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fedmem.engines._flower import in_process
from fedmem.strategies.fedadagrad import FedAdagrad
from fedmem.strategies.fedadam import FedAdam
from fedmem.strategies.fedyogi import FedYogi
from tests.cohorts import Cohort, by_rule, cohort, flat, models


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def mean_update(there: Cohort, w: np.ndarray) -> np.ndarray:
    out: np.ndarray = np.average([flat(model) for model in there.sent], axis=0, weights=there.sizes) - w
    return out


# --- Adam, Yogi, Adagrad ----------------------------------------------------------------------------------------------

SECONDS: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "adam": (FedAdam(server_lr=0.1, beta_1=0.8, beta_2=0.95, tau=0.1), lambda v, d: 0.95 * v + 0.05 * d**2),
    "yogi": (
        FedYogi(server_lr=0.1, beta_1=0.8, beta_2=0.95, tau=0.1),
        lambda v, d: v - 0.05 * d**2 * np.sign(v - d**2),
    ),
    "adagrad": (FedAdagrad(server_lr=0.1, beta_1=0.8, tau=0.1), lambda v, d: v + d**2),
}


@pytest.mark.parametrize("name", SECONDS)
def test_adaptive_servers_follow_the_published_recursion(name: str) -> None:
    """Four rounds of Reddi et al. (2021), algorithm 2, in plain numpy with float64; another second moment is seen."""
    rng = np.random.default_rng(5)
    strategy, _ = SECONDS[name]
    before, rounds = models(rng, 1), [cohort(rng, 2) for _ in range(4)]
    # a coordinate that moves far at first and little later, so that Yogi takes both of its branches
    rounds = [
        there.sending([{n: before[0][n] + (v - before[0][n]) / 3**i for n, v in m.items()} for m in there.sent])
        for i, there in enumerate(rounds)
    ]
    got = [flat({n: v[0] for n, v in after.items()}) for after in by_rule(strategy, [[c] for c in rounds], before)]

    def followed(second: Callable[[Any, Any], Any]) -> list[np.ndarray]:
        w, found = flat(before[0]), []
        m, v = np.zeros_like(w), np.full_like(w, 0.01)
        for there in rounds:
            d = mean_update(there, w)
            m, v = 0.8 * m + 0.2 * d, second(v, d)
            w = w + 0.1 * m / (np.sqrt(v) + 0.1)
            found.append(w)
        return found

    for other, (_, second) in SECONDS.items():
        same = np.allclose(got, followed(second), rtol=1e-4, atol=1e-5)
        assert same == (other == name), other
    flipped = followed(lambda v, d: np.maximum(v + 0.05 * d**2 * np.sign(v - d**2), 0))
    assert not np.allclose(got, flipped, rtol=1e-4, atol=1e-5)


# --- FedExP -----------------------------------------------------------------------------------------------------------


# --- q-FedAvg ---------------------------------------------------------------------------------------------------------


# --- shares -----------------------------------------------------------------------------------------------------------
