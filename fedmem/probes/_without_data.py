"""The part of an update that depends on no data: what a server that knows the client algorithm takes off."""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.evidence import Transition
from fedmem.contracts.probe import Context
from fedmem.errors import ComponentError

ROUNDING = 1e-6
"""A unit that is off by less than this share of its length is off by rounding alone."""


def train_without_data(sender: Transition, start: Params, steps: int, context: Context) -> Params:
    """The model after so many local steps from `start`, were the gradients of all data zero.

    Weight decay, momentum, a proximal term and the corrections of `scaffold` and `feddyn` act on it. A server knows the
    client algorithm and the payload that it sent. Noise, defences and the memory of the client have no part in it. The
    steps of `sgd` are linear in gradients. So this model minus the one that the client trains is a sum of multiples of
    the gradients of its batches.

    Errors: `ComponentError` where a gradient of zero gives a model that is not finite.
    """
    import torch

    _, payload = context.batches_and_payload(sender)
    with torch.no_grad():
        state = context.client.init(start, payload, {})
        for _ in range(steps):
            state = context.client.step(state, lambda params: {n: torch.zeros_like(v) for n, v in params.items()})
    model = state["params"]
    if not all(bool(value.isfinite().all()) for value in model.values()):
        raise ComponentError(
            "client",
            f"this probe takes off what {type(context.client).__name__} does without data, but a gradient of zero "
            "gives a model that is not finite. Let step() accept a gradient of zero, or leave the probe out",
        )
    return model


def scale_of(updates: FloatArray, drifts: FloatArray, sizes: FloatArray) -> float:
    """The factor by which a defence such as `clip` scaled an update, read from units that no row moved; else 1.

    Without rows an update is a multiple of its drift, with the same factor for all units. The factor is the median over
    units that are such multiples, between 0 and 1, and by more than rounding.

    Args:
        updates: (k, d) of each unit, or differences of units.
        drifts: (k, d) what they would be without data and defences.
        sizes: (k,) the length of each unit as it was sent, for what counts as rounding.

    >>> drifts = np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    >>> scale_of(np.array([[1.0, 0.0], [0.0, 2.0], [0.7, 0.1]]), drifts, np.ones(3))
    0.5
    >>> scale_of(np.array([[3.0, 1.0], [2.0, 2.0], [0.7, 0.1]]), drifts, np.ones(3))
    1.0
    """
    squares = np.square(drifts).sum(axis=1)
    along = np.divide((updates * drifts).sum(axis=1), squares, out=np.full(len(squares), math.nan), where=squares > 0)
    rest = np.linalg.norm(updates - along[:, None] * drifts, axis=1)
    is_drift = (rest <= ROUNDING * sizes) & (np.linalg.norm(updates, axis=1) > 10 * ROUNDING * sizes)
    is_drift &= (along > 0) & (along <= 1 + ROUNDING)
    return float(np.median(along[is_drift])) if is_drift.any() else 1.0
