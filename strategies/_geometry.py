"""Updates of a cohort as vectors over all their arrays, in float64: lengths, angles, and steps along them."""

from __future__ import annotations

from dataclasses import replace

import torch

from ._rule import Arrays, Round, weighted_mean


def broadcast_factors(factors: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """(R, K) in a shape that is broadcast over (R, K, ...)."""
    return factors.reshape(factors.shape + (1,) * (values.ndim - factors.ndim))


def drop_non_finite(rnd: Round) -> Round:
    """The same round, in which a client that sent a number that is not finite counts as absent."""
    is_finite = rnd.present
    for values in rnd.sent.values():
        is_finite = is_finite & values.isfinite().reshape(*is_finite.shape, -1).all(dim=2)
    if torch.equal(is_finite, rnd.present) and bool(is_finite.all()):
        return rnd
    # replaced, because a weight of zero does not silence an infinity
    sent = {n: torch.where(broadcast_factors(is_finite, v), v, rnd.before[n][:, None]) for n, v in rnd.sent.items()}
    return replace(rnd, sent=sent, present=is_finite, clients=torch.where(is_finite, rnd.clients, -1))


def updates(rnd: Round) -> Arrays:
    """(R, K, ...) float64 differences between what was sent and the model before."""
    return {name: values.double() - rnd.before[name].double()[:, None] for name, values in rnd.sent.items()}


def products(first: Arrays, other: Arrays) -> torch.Tensor:
    """(R, K) inner products of vectors (R, K, ...), each with its counterpart."""
    runs, places = next(iter(first.values())).shape[:2]
    total = torch.zeros((runs, places), dtype=torch.float64)
    for name, values in first.items():
        total = total + (values * other[name]).reshape(runs, places, -1).sum(dim=2)
    return total


def norms(vectors: Arrays) -> torch.Tensor:
    """(R, K) Euclidean lengths."""
    return products(vectors, vectors).sqrt()


def move_model(rnd: Round, vectors: Arrays, factors: torch.Tensor) -> Arrays:
    """The model before plus the sum of vectors (R, K, ...) times factors (R, K), in the types of the model."""
    steps = weighted_mean(vectors, factors)
    return {name: (before.double() + steps[name]).to(before.dtype) for name, before in rnd.before.items()}


def or_before(rnd: Round, after: Arrays) -> Arrays:
    """The next model, or the one before in runs without a present client."""
    anybody = rnd.present.any(dim=1)
    return {
        name: torch.where(broadcast_factors(anybody, value), value, rnd.before[name]) for name, value in after.items()
    }
