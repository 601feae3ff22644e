"""What tests of defence share."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.contracts.arrays import Params


def update(seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return {
        "w": torch.from_numpy(rng.normal(size=(3, 4)).astype(np.float32)),
        "b": torch.from_numpy(rng.normal(size=5).astype(np.float32)),
    }
