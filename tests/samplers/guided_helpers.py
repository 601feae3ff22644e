"""What tests of guided share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedmem.contracts.sampler import History, Sampler

SIZES = [1, 2, 4, 5]


def known(sizes: list[int] = SIZES, **arrays: Any) -> History:
    given: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    return replace(History.start(sizes), **given)


def counts(sampler: Sampler, history: History, times: int = 4000, round_number: int = 5) -> list[int]:
    """How often each client is picked in one and the same round."""
    rng, found = np.random.default_rng(0), np.zeros(history.num_clients, dtype=np.int64)
    for _ in range(times):
        found[sampler.cohort(round_number, history, rng)] += 1
    return found.tolist()
