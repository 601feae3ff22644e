"""Signals over rounds with a planted effect of membership, for attacks that read series."""

from __future__ import annotations

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.attack import Signals


def one_federation_each(
    is_in: BoolArray,
    rng: np.random.Generator,
    *,
    name: str = "loss",
    rounds: int = 4,
    others: int = 4,
    shift: float = 0.0,
    skew: float = 0.0,
) -> Signals:
    """Standard normal values of `name` at the owner and at others; `shift` is added at the owner where it is a member.

    `skew` is added at the owner whether or not it is: what a client knows of its labels.
    """
    runs, m = is_in.shape
    difficulty = rng.normal(size=m)
    own = difficulty + rng.normal(size=(rounds, runs, m)) + shift * is_in + skew * rng.gamma(1, size=m)
    rest = [difficulty + rng.normal(size=(others, runs, m)) for _ in range(rounds)]
    return of_series(is_in, name=name, own=own, others=rest)


def of_series(is_in: BoolArray, *, name: str, own: FloatArray, others: list[FloatArray]) -> Signals:
    """What an attack sees of one quantity; its last value stands for the margin."""
    return Signals(margin=own[-1], is_in=is_in, series={name: own}, others={name: others})
