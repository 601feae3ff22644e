"""Tests of `strategies/norm_clipping.py`."""

from __future__ import annotations

import numpy as np

from fedmem.strategies.norm_clipping import NormClipping
from tests.strategies.strategies_helpers import aggregate


def test_norm_clipping_is_the_plain_loop() -> None:
    rng = np.random.default_rng(4)
    sent, before, sizes = rng.normal(size=(6, 3)), rng.normal(size=3), [1, 2, 3, 4, 5, 6]
    sent[2] = before
    cases = (
        (NormClipping(radius=1.2, weighting="uniform"), np.ones(6)),
        (NormClipping(radius=1.2, weighting="size"), np.array(sizes, dtype=float)),
    )
    for clipping, weights in cases:
        expected = before.astype(np.float64)
        for row, weight in zip(sent - before, weights / weights.sum(), strict=True):
            length = np.linalg.norm(row)
            expected = expected + weight * (row if length <= 1.2 else row * 1.2 / length)
        got = aggregate(clipping, sent, before=before, sizes=sizes)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert {np.linalg.norm(row) > 1.2 for row in sent - before} == {True, False}
