"""What tests of defences share."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.contracts.arrays import Params


def update(*shape: int, seed: int = 0, scale: float = 1.0) -> Params:
    rng = np.random.default_rng(seed)
    return {
        "a": torch.from_numpy((scale * rng.normal(size=shape or (40, 5))).astype(np.float32)),
        "b": torch.from_numpy((3 * scale * rng.normal(size=30)).astype(np.float32)),
    }


def norm(params: Params) -> float:
    return float(torch.cat([value.double().reshape(-1) for value in params.values()]).norm())
