"""Tests of `fedmem/models/_attention.py`."""

from __future__ import annotations

import numpy as np
import torch

from tests.models.transformer_helpers import LENGTH, network, texts


def test_a_block_is_that_of_its_paper() -> None:
    """One head at a time, one place at a time, in numpy."""
    module, rows = network(layers=1).double(), texts(1)
    p = {name: value.detach().numpy() for name, value in module.named_parameters()}

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        away = x - x.mean()
        out: np.ndarray = away / np.sqrt(away.var() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]
        return out

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        out: np.ndarray = p[f"{name}.weight"] @ x + p[f"{name}.bias"]
        return out

    x = [p["tokens.weight"][token] + p["places.weight"][i] for i, token in enumerate(rows[0].tolist())]
    asked = [linear(normed(row, "blocks.0.norm1"), "blocks.0.asks") for row in x]
    expected = []
    for i in range(LENGTH):
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            scores = np.array([asked[i][:8][h] @ asked[j][8:16][h] / 2 for j in range(i + 1)])
            odds = np.exp(scores - scores.max())
            heads.append(sum(o * asked[j][16:][h] for j, o in enumerate(odds / odds.sum())))
        y = x[i] + linear(np.concatenate(heads), "blocks.0.mixes")
        wide = torch.from_numpy(linear(normed(y, "blocks.0.norm2"), "blocks.0.widens"))
        y = y + linear((wide * 0.5 * (1 + torch.erf(wide / 2**0.5))).numpy(), "blocks.0.narrows")
        expected.append(linear(normed(y, "norm"), "output"))
    np.testing.assert_allclose(module(rows)[0].detach().numpy(), expected, atol=1e-10)
