"""What tests of unrolled share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmem.attacks._problems import Problem, starts
from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.data import Examples
from fedmem.modalities.undescribed import modality_of_shape
from fedmem.seeding import stream
from tests.lab import digits, gradient_of, network, parameters


def streams(count: int) -> list[np.random.Generator]:
    return [stream(0, "x", client=t) for t in range(count)]


def rows_of(size: int, first: int = 0) -> Examples:
    rows = digits().take(np.arange(first, first + size))
    return rows.take(np.argsort(rows.targets, kind="stable"))


def worked(client: Sgd, rows: Examples, batches: IntArray, model: nn.Module) -> GradientTarget:
    """What a real client sends after its steps, computed as `tests.lab` does, in float32, batch by batch."""
    before = params = parameters(model)
    velocity = {name: torch.zeros_like(value) for name, value in params.items()}
    for places in batches:
        own = places[places >= 0]
        gradient = gradient_of(model, params, rows.inputs[own], rows.targets[own])
        velocity = {name: client.momentum * velocity[name] + g for name, g in gradient.items()}
        params = {name: value - client.lr * velocity[name] for name, value in params.items()}
    update = {name: params[name].double() - value.double() for name, value in before.items()}
    return GradientTarget(
        model=model,
        params=before,
        update=update,
        gradient={name: -value / (client.lr * len(batches)) for name, value in update.items()},
        num_images=len(rows),
        input_shape=rows.inputs.shape[1:],
        num_classes=10,
        modality=modality_of_shape(rows.inputs.shape[1:]),
        knows="",
        labels=rows.targets,
        algorithm=client,
        batches=batches,
    )


CLIENT = Sgd(lr=0.5, epochs=3, batch_size=2)


def made(size: int = 4, first: int = 0, client: Sgd = CLIENT, seed: int = 0, model: Any = None) -> GradientTarget:
    batches = client.batches(size, np.random.default_rng(seed))
    return worked(client, rows_of(size, first), batches, model or network(nn.Tanh))


def stacked(targets: Sequence[GradientTarget]) -> list[Problem]:
    return [replace(one, batches=one.target.batches) for one in starts(targets, streams(len(targets)), 1)]
