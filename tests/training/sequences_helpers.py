"""What tests of sequences share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import Params
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Transition
from fedmem.observation.evidence import evidence_of
from fedmem.training.one_by_one import OneByOne

V, L = 5, 6


class Counts(nn.Module):
    """Logits from the tokens so far, whatever their order: causal, and stacked without ado."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, 8)
        self.output = nn.Linear(8, V)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.output(torch.tanh(self.embedding(tokens).cumsum(dim=1)))
        return logits


def params_of(model: nn.Module, seed: int = 0) -> Params:
    rng = torch.Generator().manual_seed(seed)
    return {name: value.detach() + torch.randn(value.shape, generator=rng) for name, value in model.named_parameters()}


def passages(n: int, seed: int = 0) -> Examples:
    """The first asks at every place, the second at one; most leave some out, wherever it is."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, V, (n, L))
    left_out = rng.random((n, L)) < 0.3
    left_out[:, 2] = False
    left_out[0], left_out[1] = False, np.arange(L) > 0
    targets[left_out] = -1
    return Examples(inputs=rng.integers(0, V, (n, L)), targets=targets, ids=np.arange(n))


def loss_by_hand(logits: Tensor, targets: np.ndarray) -> Tensor:
    """(n,) place by place."""
    found = []
    for row, wanted in zip(logits, targets.tolist(), strict=True):
        told = [cross_entropy(row[i][None], torch.tensor([t])) for i, t in enumerate(wanted) if t != -1]
        found.append(torch.stack(told).mean())
    return torch.stack(found)


def transitions_of(models: list[Params]) -> list[Transition]:
    return [
        Transition(run=r, round=2, level="global", client=-1, before=p, sent=p, kept=p, num_examples=1)
        for r, p in enumerate(models)
    ]


def told(model: nn.Module, models: list[Params], rows: Examples) -> Any:
    return evidence_of(models, transitions_of(models), "audit", rows, OneByOne(model, Sgd(), rows))
