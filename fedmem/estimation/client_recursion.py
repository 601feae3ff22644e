"""How a model would have moved had one client never taken part: a recursion over rounds (Xue et al., 2021).

Let θ_r be the aggregate of round r, and θ_r^{−c} that of the same training without client c. Then ε_r = θ_r^{−c} − θ_r
follows, to first order in ε, the recursion

    ε_r = Σ_{k≠c} w'_k J_k ε_{r−1} + (Σ_{k≠c} w'_k θ_k − θ_r),

with ε_0 = 0. θ_k is the model that client k sent in the real training, and w'_k are its weights without c. J_k =
Π_s (I − η_s H_k) is the derivative of its local training, with steps of rates η_s and the Hessian H_k of its objective.
It is exact where the objectives are quadratic and each step uses all rows.

Reference: Xue, Niu, Zheng, Tang, Lyu, Wu and Chen (2021), Toward understanding the influence of individual clients in
federated learning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray

Response = Callable[[FloatArray], FloatArray]
"""(N, P) shifts of the model that a client receives -> those of the model that it sends, to first order."""


@dataclass(frozen=True, kw_only=True)
class RoundOfClients:
    """One round as the server sees it, with P parameters.

    Attributes:
        clients: (K,) the clients of the cohort.
        sizes: (K,) their weights, of any sum.
        before: (P,) the model that they received.
        sent: (K, P) the models that they sent.
        after: (P,) the aggregate.
        responses: J_k of each of them.
    """

    clients: IntArray
    sizes: FloatArray
    before: FloatArray
    sent: FloatArray
    after: FloatArray
    responses: Sequence[Response]


def shift_without(shift: FloatArray, rnd: RoundOfClients) -> FloatArray:
    """(N, P) θ_r^{−c} − θ_r of every client c, from the same after the round before.

    A cohort of c alone leaves the model as it was.

    >>> rnd = RoundOfClients(
    ...     clients=np.array([0, 1]), sizes=np.array([1.0, 3.0]), before=np.zeros(1), sent=np.array([[4.0], [0.0]]),
    ...     after=np.array([1.0]), responses=[lambda shift: shift / 2] * 2)
    >>> shift_without(np.array([[8.0], [0.0], [2.0]]), rnd).tolist()  # client 2 is not in the cohort
    [[3.0], [3.0], [1.0]]
    """
    moved = np.stack([response(shift) for response in rnd.responses])
    is_left = rnd.clients != np.arange(len(shift))[:, None]
    counted = is_left * rnd.sizes
    total = counted.sum(axis=1, keepdims=True)
    # clients without rows weigh the same where nobody else is left
    counted = np.where(total > 0, counted, is_left.astype(np.float64))
    shares = counted / np.maximum(counted.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    # the aggregate has no weight of a client that is not there, but was rounded
    dropped = np.where(is_left.all(axis=1, keepdims=True), 0.0, shares @ rnd.sent - rnd.after)
    following = np.einsum("nk,knp->np", shares, moved) + dropped
    return np.asarray(np.where(is_left.any(axis=1, keepdims=True), following, shift + rnd.before - rnd.after))
