"""The common part of several samplers: find those that hold rows, take the highest, draw by weight."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.errors import ComponentError


def with_rows(history: History, count: int, field: str = "size", group: str = "cohort") -> IntArray:
    """The clients that have rows, sorted. Errors: `ComponentError` at `field` where they are fewer than `wanted`."""
    clients = np.flatnonzero(history.sizes > 0)
    if count > len(clients):
        raise ComponentError(
            f"sampler.{field}",
            f"a {group} of {count}, but {len(clients)} of {history.num_clients} clients have rows; "
            f"use at most {len(clients)}, or a partition that gives every client rows",
        )
    return clients


def pick_highest(values: FloatArray, places: int, rng: np.random.Generator) -> IntArray:
    """Positions of the highest values; NaN are before all, ties go by lot.

    >>> pick_highest(np.array([1.0, np.nan, 3.0, 2.0]), 2, np.random.default_rng(0)).tolist()
    [1, 2]
    """
    keys = np.where(np.isnan(values), np.inf, values)
    last = np.partition(keys, -places)[-places]
    higher, ties = np.flatnonzero(keys > last), np.flatnonzero(keys == last)
    return np.sort(np.concatenate([higher, rng.choice(ties, size=places - len(higher), replace=False)]))


def pick_weighted(weights: FloatArray | IntArray, places: int, rng: np.random.Generator) -> IntArray:
    """Positions drawn one after the other, without replacement, each in proportion to its weight.

    The largest sums of Gumbel noise and log weight, which is the same law. Weight 0 comes after all others.

    >>> pick_weighted(np.array([1.0, 0.0, 5.0]), 2, np.random.default_rng(0)).tolist()
    [0, 2]
    """
    with np.errstate(divide="ignore"):
        return pick_by_log_weight(np.log(weights), places, rng)


def pick_by_log_weight(logs: FloatArray, places: int, rng: np.random.Generator) -> IntArray:
    """The same, from the logs of the weights; these may be larger or smaller than any number that has an exponential.

    >>> pick_by_log_weight(np.array([-2000.0, 3000.0, -1000.0]), 2, np.random.default_rng(0)).tolist()
    [1, 2]
    """
    keys = logs + rng.gumbel(size=len(logs))
    return np.sort(np.argpartition(keys, -places)[-places:]) if places else np.empty(0, dtype=np.int64)
