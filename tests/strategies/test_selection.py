"""Tests of `strategies/_selection.py`."""

from __future__ import annotations

import numpy as np

from fedmem.strategies.krum import Krum
from tests.strategies.strategies_helpers import aggregate


def test_small_updates_of_large_models_are_distinguished() -> None:
    """The shortcut |x|^2 + |y|^2 - 2 x y in float32 loses them, and would choose another client."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=20_000)
    steps = rng.normal(size=(7, 20_000)) * np.array([3, 3, 3, 1, 3, 3, 3])[:, None] * 1e-5
    sent = (base + steps).astype(np.float32)
    squares = (sent * sent).sum(1)
    shortcut = squares[:, None] + squares[None] - 2 * sent @ sent.T
    assert shortcut.min() < 0
    got = aggregate(Krum(f=1), sent)
    assert np.array_equal(got, sent[3])
    broken = np.sort(shortcut, axis=1)[:, 1:5].sum(1).argmin()
    exact = ((sent[:, None].astype(np.float64) - sent[None]) ** 2).sum(2)
    assert np.sort(exact, axis=1)[:, 1:5].sum(1).argmin() == 3
    assert broken != 3
