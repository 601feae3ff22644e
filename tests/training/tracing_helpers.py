"""What tests of tracing share."""

from __future__ import annotations

import torch
from torch import Tensor


def busy(given: dict[str, Tensor], mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Views, a factor of one, an unused product, a constant and a reduction."""
    weight = given["w"].detach().view(given["w"].shape) * 1
    (weight @ weight).sum()
    shifted = (weight @ given["x"].T) + torch.arange(3.0)
    return {"w": weight - 0.1 * shifted.relu(), "x": given["x"]}, (shifted * mask).sum()


def given(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(3, 3, generator=rng), "x": torch.randn(3, 3, generator=rng)}, torch.ones(3)
