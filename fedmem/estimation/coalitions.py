"""Values of players from the worth of coalitions: Shapley values, exact or truncated, leave-one-out, and completion.

A coalition of K players is a number: bit k is set where player k is a member. The worth of a coalition may have one
entry for each of n rows. All values are linear in it, so that each row has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from fedmem.contracts.arrays import FloatArray, IntArray

Worth = Callable[[Sequence[int]], FloatArray]
"""Coalitions -> (c, n) their worth on n rows."""

SWEEPS = 500
"""Alternations of a completion, at most."""

RIDGE = 1e-6
"""The ridge of a completion, relative to the mean square of what was observed."""


def shapley(worth: FloatArray) -> FloatArray:
    """(K, ...) Shapley values from the worth (2^K, ...) of all coalitions, by number.

    The value of k is Σ_S |S|! (K − |S| − 1)! / K! × (v(S ∪ k) − v(S)) over coalitions S without k. Values sum to v(all)
    − v(∅).

    >>> gloves = np.array([0.0, 0, 0, 1, 0, 1, 0, 1])  # player 0 has the left glove, 1 and 2 a right one each
    >>> shapley(gloves).round(4).tolist()
    [0.6667, 0.1667, 0.1667]
    """
    players = len(worth).bit_length() - 1
    assert len(worth) == 1 << players, "the worth of every coalition is needed"
    return np.asarray(np.tensordot(_shapley_weights(players), worth, axes=1))


@lru_cache(maxsize=16)
def _shapley_weights(players: int) -> FloatArray:
    """(K, 2^K) the matrix of this linear map; read-only."""
    coalitions = np.arange(1 << players)
    is_member = (coalitions >> np.arange(players)[:, None] & 1).astype(bool)
    sizes = is_member.sum(axis=0)
    # a coalition with k has |S| = size − 1, one without k has |S| = size
    of_size = [1 / (players * math.comb(players - 1, size)) for size in range(players)]
    joined = np.array([0.0, *of_size])[sizes]
    left = np.array([*of_size, 0.0])[sizes]
    weights: FloatArray = np.where(is_member, joined, -left)
    weights.flags.writeable = False
    return weights


def leave_one_out(worth: Worth, players: int) -> FloatArray:
    """(K, n) v(all) − v(all without k).

    >>> leave_one_out(lambda coalitions: np.array([[float(c)] for c in coalitions]), 3)[:, 0].tolist()
    [1.0, 2.0, 4.0]
    """
    whole = (1 << players) - 1
    values = worth([whole, *(whole ^ 1 << k for k in range(players))])
    return np.asarray(values[0] - values[1:])


def guided_orders(players: int, each: int, rng: np.random.Generator) -> IntArray:
    """(K × each, K) random orders of players, in which every player is first equally often (Liu et al., 2022).

    >>> orders = guided_orders(3, 2, np.random.default_rng(0))
    >>> orders.shape, sorted(orders[:, 0].tolist())
    ((6, 3), [0, 0, 1, 1, 2, 2])
    """
    first = np.tile(np.arange(players), each)[:, None]
    others = np.array([[k for k in range(players) if k != leader] for leader in first[:, 0]], dtype=np.int64)
    others = others.reshape(len(first), players - 1)
    return np.concatenate([first, rng.permuted(others, axis=1)], axis=1)


def truncated_shapley(worth: Worth, orders: IntArray, *, between: float = 0.0, within: float = 0.0) -> FloatArray:
    """(K, n) Shapley values from orders (M, K) of players, with the truncations of GTG-Shapley (Liu et al., 2022).

    A value is the mean over orders of what the player adds to those before it.

    - Where |v(all) − v(∅)| < `between`, all values are 0.
    - An order ends where |v(all) − v(first players)| < `within`; players after that add 0.

    Both compare means over rows. With both at 0 nothing is truncated. Then values sum to v(all) − v(∅), and those from
    all K! orders are Shapley's. Coalitions of all orders are asked for place by place.

    >>> gloves = np.array([0.0, 0, 0, 1, 0, 1, 0, 1])
    >>> orders = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    >>> truncated_shapley(lambda coalitions: gloves[list(coalitions), None], orders)[:, 0].round(4).tolist()
    [0.6667, 0.3333, 0.0]
    """
    count, players = orders.shape
    none, whole = worth([0, (1 << players) - 1])
    added = np.zeros((players, len(whole)))
    if abs(whole.mean() - none.mean()) < between:
        return added
    current, coalitions = np.repeat(none[None], count, axis=0), np.zeros(count, dtype=np.int64)
    for place in range(players):
        # written so that NaN goes on, and is seen in the values
        goes_on = np.flatnonzero(~(np.abs(whole.mean() - current.mean(axis=1)) < within))
        joining = orders[goes_on, place]
        coalitions[goes_on] |= 1 << joining
        distinct, position = np.unique(coalitions[goes_on], return_inverse=True)
        if not len(distinct):
            break
        after = worth(distinct.tolist())[position.reshape(-1)]
        np.add.at(added, joining, after - current[goes_on])
        current[goes_on] = after
    return np.asarray(added / count)


def complete(observed: FloatArray, rank: int) -> FloatArray:
    """(T, C) the matrix with what is missing (NaN) filled from a matrix of this rank; observed entries stay.

    The matrix W Hᵀ minimises the squared error over observed entries plus a small ridge, by alternating least squares.
    These start from the singular vectors of the matrix with 0 for what is missing. A row or a column without any
    observed entry stays NaN: nothing says what it is.

    >>> complete(np.array([[1.0, 2.0, 3.0], [2.0, 4.0, np.nan]]), rank=1).round(3).tolist()
    [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]
    """
    is_seen = np.isfinite(observed)
    rows, columns = is_seen.any(axis=1), is_seen.any(axis=0)
    result = np.array(observed, dtype=np.float64)
    if is_seen.all() or not is_seen.any():
        return result
    values, mask = observed[np.ix_(rows, columns)], is_seen[np.ix_(rows, columns)]
    scale = float(np.sqrt(np.square(values[mask]).mean())) or 1.0
    filled = np.where(mask, values / scale, 0.0)
    u, s, vt = np.linalg.svd(filled, full_matrices=False)
    kept = min(rank, len(s))
    left, right = u[:, :kept] * np.sqrt(s[:kept]), vt[:kept].T * np.sqrt(s[:kept])
    before = np.full(filled.shape, np.inf)
    for _ in range(SWEEPS):
        right = _fit(left, filled.T, mask.T)
        left = _fit(right, filled, mask)
        product = left @ right.T
        if np.abs(product - before).max() < 1e-12:
            break
        before = product
    result[np.ix_(rows, columns)] = np.where(mask, values, scale * (left @ right.T))
    return result


def _fit(factor: FloatArray, values: FloatArray, mask: FloatArray) -> FloatArray:
    """(a, k) the ridge regression of each row of values (a, b) on the other factor (b, k), over entries in the mask."""
    weights = mask.astype(np.float64)
    squares = np.einsum("ab,bk,bl->akl", weights, factor, factor, optimize=True)
    squares += RIDGE * np.eye(factor.shape[1])
    return np.asarray(np.linalg.solve(squares, (weights * values @ factor)[..., None])[..., 0])
