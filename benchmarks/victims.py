"""What is attacked: networks and gradients of one image each, in torch alone, so that peers can import it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import networks

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "features": 784, "hidden": 64, "classes": 10},
    "lenet": {"kind": "lenet", "side": 28, "channels": 12, "classes": 10},
    "cnn": {"kind": "cnn", "side": 28, "channels": (32, 64), "hidden": 128, "classes": 62},
}
"""The last is that of W2."""

STEPS = {"mlp": 100, "lenet": 100, "cnn": 25}
"""Iterations of every contender; what one costs does not depend on how many there are."""

SHAPE = (1, 28, 28)


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One image's label and gradient, and where everybody starts to look for the image, (1, *SHAPE)."""

    label: int
    gradient: dict[str, Tensor]
    start: NDArray[np.float32]


def network_of(name: str) -> nn.Module:
    """The network, with the same weights in every process."""
    torch.manual_seed(0)
    return networks.build(NETWORKS[name])


def victims(name: str, module: nn.Module, count: int) -> list[Victim]:
    """So many; the first ones are the same whatever the count."""
    found = []
    for i in range(count):
        rng = np.random.default_rng([1, i])
        label = int(rng.integers(NETWORKS[name]["classes"]))
        image = torch.from_numpy(rng.random((1, *SHAPE), dtype=np.float32))
        loss = F.cross_entropy(module(image), torch.tensor([label]))
        params = dict(module.named_parameters())
        gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        start = generator(i).random((1, *SHAPE), dtype=np.float32)
        found.append(Victim(label=label, gradient=gradient, start=start))
    return found


def generator(i: int) -> np.random.Generator:
    """What the start of a victim is drawn from."""
    return np.random.default_rng([2, i])


def decayed(lr: float, step: int, steps: int) -> float:
    """The step size: a tenth after 3/8, 5/8 and 7/8 of the way each."""
    return lr * 0.1 ** sum(8 * step >= eighths * steps for eighths in (3, 5, 7))
