"""Tests of `strategies/centred_clipping.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.strategies.centred_clipping import CentredClipping
from tests.strategies.strategies_helpers import one_round


@pytest.mark.parametrize("iterations", [1, 3])
def test_centred_clipping_follows_the_published_recursion(iterations: int) -> None:
    rng = np.random.default_rng(2)
    strategy = CentredClipping(radius=1.5, iterations=iterations)
    w, v, forgetful = rng.normal(size=4).astype(np.float32), np.zeros(4), np.zeros(4)
    state = strategy.state({"w": torch.from_numpy(w)[None]}, 3)
    for number in range(1, 4):
        sent = (w + rng.normal(size=(5, 4)) * 2).astype(np.float32)
        after, state = strategy.rule(state, one_round(sent, before=w, number=number))
        forgetful = np.zeros(4)
        for _ in range(iterations):
            for start in (v, forgetful):
                gaps = sent.astype(np.float64) - w - start
                start += (gaps * np.minimum(1, 1.5 / np.linalg.norm(gaps, axis=1))[:, None]).mean(0)
        np.testing.assert_allclose(after["w"][0].numpy(), w + v, rtol=1e-5, atol=1e-5)
        assert number == 1 or not np.allclose(after["w"][0].numpy(), w + forgetful, rtol=1e-2)
        w = after["w"][0].numpy()
