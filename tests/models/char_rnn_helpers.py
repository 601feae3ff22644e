"""What tests of char rnn share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from fedmem.models.char_rnn import CharRnn

VOCABULARY = 11


def network(**fields: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CharRnn(**{"embedding": 4, "hidden": 6, **fields}).build((9,), VOCABULARY).double()


def texts(count: int = 3, length: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(VOCABULARY, size=(count, length)))
