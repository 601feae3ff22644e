"""What tests of text leakage share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget
from fedmem.modalities.text.windows import inputs_and_targets
from fedmem.modalities.texts import Texts
from fedmem.models.transformer import Transformer
from tests.lab import gradient_of, parameters

V, L = 30, 8


def network(model: Any = None, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (model or Transformer(width=16, heads=2, layers=1)).build((L,), V)


def windows(count: int, seed: int = 0, lengths: Sequence[int] = ()) -> IntArray:
    """Texts of L + 1 tokens, or of so many."""
    found = np.random.default_rng(seed).integers(V, size=(count, L + 1))
    for row, length in enumerate(lengths):
        found[row, length:] = -1
    return found


def target_of(model: nn.Module, truth: IntArray, scale: float = 1.0) -> GradientTarget:
    inputs, targets = inputs_and_targets(truth)
    params = parameters(model)
    gradient = gradient_of(model, params, inputs, targets)
    return GradientTarget(
        model=model,
        params=params,
        gradient={name: scale * value for name, value in gradient.items()},
        num_images=len(truth),
        input_shape=(L,),
        target_shape=(L,),
        num_classes=V,
        modality=Texts(),
        knows="",
    )


TEXTS: dict[str, Any] = {
    "dataset": {"kind": "shakespeare", "clients": 5, "length": 12, "max_chars": 2000},
    "partition": {"kind": "natural"},
    "model": {"kind": "transformer", "width": 8, "heads": 2, "layers": 1},
    "injections": [
        {"kind": "secret", "template": "<b>{digits:3}", "per_client": 2},
        {"kind": "typical", "per_client": 2},
    ],
    "population": 10,
    "references": 20,
}
