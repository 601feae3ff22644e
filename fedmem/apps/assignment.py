"""Which client owns each canary of an app, and which canaries a run includes: drawn by the seed of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.seeding import stream


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The owning client of each of n canaries, and which of them this run includes.

    Attributes:
        owner: (n,) clients: numbers, or names. The same in every run.
        included: (n,) whether the owner trains on the canary in this run.

    >>> plan = Assignment(owner=(0, 1, 0), included=np.array([True, True, False]))
    >>> plan.rows_of(0).tolist(), plan.rows_of("1").tolist(), plan.rows_of(7).tolist()
    ([0], [1], [])
    """

    owner: tuple[int | str, ...]
    included: BoolArray

    def rows_of(self, client: int | str) -> IntArray:
        """The canaries that this client trains on in this run, as positions; call it in the ClientApp."""
        owned = np.array([str(owner) == str(client) for owner in self.owner], dtype=bool)
        return np.flatnonzero(owned & self.included)

    def __len__(self) -> int:
        return len(self.owner)


def assign_canaries(
    canaries: int, clients: Sequence[int | str], seed: int, *, runs: int | None = None, name: str = ""
) -> Assignment:
    """Give each canary to a client in turn, and include each at random, with probability 1/2.

    ClientApp and ServerApp call it with the same arguments, so nothing has to be sent. The owner depends on the number
    of the canary alone, and the inclusion on the seed, so that only chance decides what a run includes.

    Args:
        canaries: The number n of canaries. Draw the canaries themselves with a seed that all runs share.
        clients: The clients that may own one, by the identity that the frames have; canary j goes to client j mod K.
        seed: The seed of the run.
        runs: With an even number, the runs are those with seeds 0 to `runs` - 1, and each canary is included in exactly
            half of them. Without it, each run draws independently.
        name: The name of this set of canaries. Sets of different names are included independently of each other. Two
            calls with the same name give canary j the same inclusion. Give a set of controls a name of its own.

    Errors: `ValueError` without clients or canaries, for a client named twice, and for a seed that is none of `runs`.

    >>> plans = [assign_canaries(5, range(3), seed, runs=8) for seed in range(8)]
    >>> plans[0].owner, np.sum([plan.included for plan in plans], axis=0).tolist()
    ((0, 1, 2, 0, 1), [4, 4, 4, 4, 4])
    >>> controls = assign_canaries(40, range(3), 0, runs=8, name="controls")
    >>> (controls.included == assign_canaries(40, range(3), 0, runs=8).included).all()
    np.False_
    """
    if canaries < 1:
        raise ValueError(f"canaries must be at least 1, got {canaries}")
    if not len(clients):
        raise ValueError("clients is empty; name at least one client")
    names = [str(client) for client in clients]
    if len(set(names)) < len(names):
        raise ValueError(f"clients names {next(name for name in names if names.count(name) > 1)} twice")
    owner = tuple(clients[j % len(clients)] for j in range(canaries))
    suffix = f" of {name}" if name else ""
    if runs is None:
        return Assignment(owner=owner, included=stream(seed, "app inclusion" + suffix).random(canaries) < 0.5)
    if runs < 2 or runs % 2:
        raise ValueError(f"runs must be even and at least 2, got {runs}")
    if not 0 <= seed < runs:
        raise ValueError(f"seed {seed} is none of the {runs} runs; use seeds 0 to {runs - 1}")
    halves = np.tile(np.arange(runs) % 2 == 0, (canaries, 1))
    coins = stream(0, f"app inclusion in {runs} runs{suffix}").permuted(halves, axis=1)
    return Assignment(owner=owner, included=coins[:, seed])
