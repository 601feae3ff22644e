"""Rows of one client come back from weights alone, where the mean of public rows is subtracted from inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from fedmem.attacks.kkt import Kkt
from fedmem.contracts.attack import GradientTarget
from fedmem.modalities.images import Images

pytestmark = [pytest.mark.statistical]

ROWS, WIDTH, PEERS = 8, 64, 20


class Network(torch.nn.Module):
    """One hidden layer with biases, after a constant is subtracted from each input."""

    def __init__(self, subtracted: Tensor, scale: float) -> None:
        super().__init__()
        self.subtracted = subtracted
        self.hidden, self.output = torch.nn.Linear(64, WIDTH), torch.nn.Linear(WIDTH, 2, bias=False)
        with torch.no_grad():
            for value in self.parameters():
                value.mul_(scale)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.output(torch.relu(self.hidden(inputs - self.subtracted.to(inputs))))
        return outputs


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one client: how many of its rows are identified, and of as many rows that it did not have."""

    inside: int
    outside: int


def attack(seeds: Sequence[int], *, subtract: bool, steps: int, search: dict[str, Any]) -> list[Outcome]:
    """Trains a network on 8 digits, even or odd, for each seed by whole-batch descent, and attacks its weights.

    The mean that is subtracted is over images that are neither trained on, nor controls, nor peers.
    """
    images, digits = load_digits(return_X_y=True)
    images, digits = (images / 16).astype(np.float32), digits % 2
    orders = [np.random.default_rng(seed).permutation(len(images)) for seed in seeds]
    networks, rows = [], np.stack([order[:ROWS] for order in orders])
    for seed, order in zip(seeds, orders, strict=True):
        torch.manual_seed(seed)
        mean = images[order[2 * ROWS + PEERS :]].mean(axis=0) if subtract else np.zeros(64, np.float32)
        networks.append(Network(torch.from_numpy(mean), 0.3))
    train(networks, torch.from_numpy(images[rows]), torch.from_numpy(digits[rows]), steps)
    outcomes = []
    for seed, order, network in zip(seeds, orders, networks, strict=True):
        target = GradientTarget(
            model=network, params={name: value.detach() for name, value in network.named_parameters()}, gradient={},
            num_images=ROWS, input_shape=(64,), num_classes=2, modality=Images(), knows="count",
            labels=np.sort(digits[order[:ROWS]]),
        )  # fmt: skip
        (result,) = Kkt(noise=0.1, **search).reconstruct([target], [np.random.default_rng(seed)])
        inside, outside, peers = (
            np.square(result.inputs[:, None] - images[chosen]).mean(axis=-1).min(axis=0)
            for chosen in (order[:ROWS], order[ROWS : 2 * ROWS], order[2 * ROWS : 2 * ROWS + PEERS])
        )
        outcomes.append(Outcome(inside=int((inside < peers.min()).sum()), outside=int((outside < peers.min()).sum())))
    return outcomes


def train(networks: Sequence[Network], inputs: Tensor, labels: Tensor, steps: int) -> None:
    """All networks at once, in place."""
    names = [name for name, _ in networks[0].named_parameters()]
    stacked = [torch.stack([network.get_parameter(name).detach() for network in networks]) for name in names]
    weights, biases, output = (value.requires_grad_() for value in stacked)
    moved = inputs - torch.stack([network.subtracted for network in networks])[:, None]
    for _ in range(steps):
        logits = torch.baddbmm(biases[:, None], moved, weights.mT).relu() @ output.mT
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        slopes = torch.autograd.grad(losses.sum() / ROWS, stacked)
        with torch.no_grad():
            for value, slope in zip(stacked, slopes, strict=True):
                value.sub_(slope, alpha=0.5)
    with torch.no_grad():
        for i, network in enumerate(networks):
            for name, value in zip(names, stacked, strict=True):
                network.get_parameter(name).copy_(value[i])


def test_rows_are_identified_after_the_mean_is_subtracted() -> None:
    outcomes = attack(range(100, 104), subtract=True, steps=6000, search={"steps": 600, "restarts": 1})
    assert sum(one.inside for one in outcomes) >= sum(one.outside for one in outcomes) + 6


def test_rows_of_an_untrained_network_are_not_identified() -> None:
    """The null: peers and rows are exchangeable, so that 1 in 21 is identified at most on average."""
    outcomes = attack(range(100, 104), subtract=True, steps=0, search={"steps": 100, "restarts": 1})
    assert sum(one.inside for one in outcomes) <= 5
