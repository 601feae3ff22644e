"""What tests of stacked share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.data import Examples
from fedmem.training.stacked import Task

CLASSES = 5


def mlp(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def initial(model: nn.Module) -> Params:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def make_store(rng: np.random.Generator, n: int = 60) -> Examples:
    return Examples(
        inputs=rng.random((n, 1, 4, 4), dtype=np.float32), targets=rng.integers(0, CLASSES, n), ids=np.arange(n)
    )


def make_tasks(
    client: ClientAlgorithm, before: Params, sizes: list[int], rng: np.random.Generator, offer: Params | None = None
) -> list[Task]:
    return [
        Task(
            run=i,
            round=1,
            client=i,
            before=before,
            rows=rng.permutation(60)[:size],
            batches=client.batches(size, rng),
            payload=offer or {},
        )
        for i, size in enumerate(sizes)
    ]
