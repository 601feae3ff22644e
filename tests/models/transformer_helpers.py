"""What tests of transformer share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.models.transformer import Transformer

VOCABULARY, LENGTH = 11, 9


def network(**fields: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Transformer(**{"width": 8, "heads": 2, "layers": 2, **fields}).build((LENGTH,), VOCABULARY)
        with torch.no_grad():
            for value in module.parameters():
                value.add_(0.3 * torch.randn(value.shape))  # far from symmetric
    return module


def texts(count: int = 3, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(VOCABULARY, size=(count, LENGTH)))
