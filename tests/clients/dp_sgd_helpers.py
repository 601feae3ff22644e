"""What tests of dp sgd share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmem.contracts.data import Examples

WIDE = 1100


SGD = {"kind": "dp_sgd", "lr": 0.3, "batch_size": 6, "steps": 3}


def store(count: int = 12) -> Examples:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(count, 5)).astype(np.float32)
    return Examples(inputs=inputs, targets=rng.integers(3, size=count), ids=np.arange(count))


def linear() -> nn.Module:
    """Of linear layers alone, whose gradients of single examples are products."""
    return seeded(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3, bias=False))


def gated() -> nn.Module:
    """With parameters of another kind."""
    return seeded(nn.Linear(5, 7), nn.GroupNorm(1, 7), nn.Tanh(), nn.Linear(7, 3))


def convolved() -> nn.Module:
    """With a convolution, and enough weights for ghost clipping."""
    return seeded(
        nn.Unflatten(1, (1, 5)),
        nn.Conv1d(1, 4, 3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, WIDE),
        nn.Tanh(),
        nn.Linear(WIDE, 3),
    )


def seeded(*layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for layer in layers:
            if isinstance(layer, nn.Linear | nn.Conv1d):
                layer.reset_parameters()
        return nn.Sequential(*layers)


networks = pytest.mark.parametrize("network", [linear, gated, convolved])


def naive(model: nn.Module, params: Any, inputs: Any, targets: Any, clip: float) -> Any:
    """The clipped sum by a plain loop, one backward pass for each example; one that is not finite is left out."""
    total = {name: np.zeros(tuple(value.shape)) for name, value in params.items()}
    for one, target in zip(inputs, targets, strict=True):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        loss = F.cross_entropy(functional_call(model, leaves, (one[None],)), target[None])
        found = torch.autograd.grad(loss, list(leaves.values()))
        norm = np.sqrt(sum(float(value.double().square().sum()) for value in found))
        if np.isfinite(norm):
            for name, value in zip(params, found, strict=True):
                total[name] += value.double().numpy() * min(1.0, clip / (norm + 1e-6))
    return total


def batch_of(model: nn.Module, count: int = 6) -> Any:
    data = store(count)
    params = {name: value.detach().clone() for name, value in model.named_parameters()}
    return params, torch.from_numpy(data.inputs), torch.from_numpy(data.targets)
