"""What tests of tabular share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fedmem.attacks.tabular import Tabular
from fedmem.contracts.attack import GradientTarget, Reconstruction
from fedmem.contracts.data import Examples
from fedmem.modalities.tables import Tables
from fedmem.models.tabular_mlp import TabularMLP
from tests.lab import parameters, target_of

BLOCKS = (1, 3, 1, 4, 2)


QUICK = Tabular(steps=100, restarts=4)


def rows(count: int, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    pieces = [rng.random((count, 1)) if k == 1 else np.eye(k)[rng.integers(k, size=count)] for k in BLOCKS]
    inputs = np.concatenate(pieces, axis=1).astype(np.float32)
    return Examples(inputs=inputs, targets=np.sort(rng.integers(2, size=count)), ids=np.arange(count))


def model(embedded: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if embedded:
            return TabularMLP(embedding=4, hidden=(32,)).build_table(BLOCKS, 2)
        return nn.Sequential(nn.Linear(sum(BLOCKS), 32), nn.Sigmoid(), nn.Linear(32, 2))


def table_target(table: Examples, embedded: bool = True) -> GradientTarget:
    net = model(embedded)
    return replace(target_of(net, parameters(net), table), num_classes=2, modality=Tables(blocks=BLOCKS))


def attacked(target: GradientTarget, attack: Tabular = QUICK, seed: int = 0) -> Reconstruction:
    (found,) = attack.reconstruct([target], [np.random.default_rng(seed)])
    return found
