"""Clients that seem most useful, and a share of new ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import annotated_types
import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.sampler import History
from fedmem.samplers._picking import pick_weighted, with_rows

CLIPPED = 0.95
"""The quantile of utility above which all count alike, so that a few outliers are not always picked."""

NEAR = 0.95
"""Share of the lowest utility among the best that still gives a client a chance."""

STALENESS = 0.1
"""Weight of the time since a client was last picked."""


@dataclass(frozen=True, kw_only=True)
class Oort:
    """Most places go to clients of high statistical utility, a share of them to clients that never trained.

    In round r the share max(`min_exploration`, `exploration` `decay`^(r-1)) of K, rounded, goes to clients that have
    not trained yet, uniformly. The others go to known clients by utility. U_k = n_k l_k, with l_k the last mean loss,
    is clipped at its 95 % quantile and scaled to [0, 1] over the known clients. Then sqrt(0.1 ln r / last round of k)
    is added, so that clients of long ago are looked at again. A client with at least 95 % of the lowest utility among
    the best is in the draw, without replacement, in proportion to utility. Where there are too few new or known
    clients, the others fill up.

    Some parts of the paper are left out. There is no clock, so that utility has no part of speed and there is no pacer.
    Clients are not banned after many rounds. The root mean square of losses in the paper's utility is replaced by the
    mean loss, which clients report.

    Fields

    - `size`: clients in every cohort, K.
    - `exploration`: share of new clients in the first round.
    - `decay`: factor of that share from round to round.
    - `min_exploration`: share of new clients below which it does not fall.

    Guarantees:

    - sorted, distinct, always exactly `size` clients, never one without rows;
    - inclusion probabilities have no closed form.

    Errors: `ComponentError` if fewer than `size` clients have rows.

    >>> from dataclasses import replace
    >>> history = replace(
    ...     History.start([9] * 4), last_loss=np.array([0.2, 0.9, 0.5, np.nan]), last_round=np.array([1, 1, 1, 0])
    ... )
    >>> Oort(size=2, exploration=0.5, decay=1.0).cohort(2, history, np.random.default_rng(0)).tolist()
    [1, 3]

    Reference: Lai, Zhu, Madhyastha and Chowdhury (2021), Oort: efficient federated learning via guided selection.
    """

    reads: ClassVar[tuple[str, ...]] = ("rows",)
    needs: ClassVar[tuple[str, ...]] = ("last_loss",)

    size: Annotated[int, annotated_types.Ge(1)] = 10
    exploration: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 0.9
    decay: Annotated[float, annotated_types.Gt(0), annotated_types.Le(1)] = 0.98
    min_exploration: Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)] = 0.2

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        """Sorted client indices."""
        clients = with_rows(history, self.size)
        has_trained = np.isfinite(history.last_loss[clients])
        trained_clients, new_clients = clients[has_trained], clients[~has_trained]
        share = max(self.min_exploration, self.exploration * self.decay ** (round_number - 1))
        num_to_explore = math.floor(share * self.size + 0.5)
        num_explored = min(len(new_clients), max(num_to_explore, self.size - len(trained_clients)))
        picks = [rng.choice(new_clients, size=num_explored, replace=False)]
        if places := self.size - num_explored:
            utility = _utility(round_number, history, trained_clients)
            lowest = np.partition(utility, -places)[-places]
            candidates = np.flatnonzero(utility >= NEAR * lowest)
            picks.append(trained_clients[candidates[pick_weighted(utility[candidates], places, rng)]])
        return np.sort(np.concatenate(picks))


def _utility(round_number: int, history: History, clients: IntArray) -> FloatArray:
    """The utility of each of these clients; above 0 from the second round on."""
    useful = history.sizes[clients] * history.last_loss[clients]
    useful = np.minimum(useful, np.quantile(useful, CLIPPED))
    spread = np.ptp(useful)
    scaled = (useful - useful.min()) / spread if spread > 0 else np.zeros(len(clients))
    # A client that has trained was picked; histories that are made by hand may not say so.
    stale: FloatArray = np.sqrt(STALENESS * math.log(round_number) / np.maximum(history.last_round[clients], 1))
    return scaled + stale
