"""Tests of `fedmem/signals/_ablation.py`; `test_unit_ablation.py` has its oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.modalities.loss import example_losses
from fedmem.models.resnet8 import ResNet8
from fedmem.models.small_cnn import SmallCNN
from fedmem.signals._ablation import ablate, input_noise, mask_outputs, unit_layers
from tests.signals.signals_helpers import Bench


def bench() -> Bench:
    return Bench(model={"kind": "mlp", "hidden": [8]})


def test_noise_gives_mean_scores_and_leaves_answers_alone() -> None:
    lab = bench()
    context, row = lab.context(lab.transition(lab.params(4))), lab.examples.take(np.array([7]))
    reference, function = lab.federation.population, context.function(0)
    noise = input_noise(context, 0.8, 3)
    assert noise is not None
    noisy = ablate(context, function, row, reference, 1, noise)
    plain = ablate(context, function, row, reference, 1)
    assert noisy[0][0, 0] == plain[0][0, 0]
    mask = torch.ones(1, 8, dtype=torch.float64, requires_grad=True)
    objective = torch.zeros((), dtype=torch.float64)
    for draw in noise:
        for rows, sign in ((row, -1.0), (reference, 1.0)):
            inputs = torch.from_numpy(rows.inputs).double() + torch.from_numpy(draw)
            with mask_outputs(context.network, [("activation1", 8, 1)], mask.expand(len(rows), -1)):
                objective = objective + sign * example_losses(function(inputs), torch.from_numpy(rows.targets)).mean()
    (scores,) = torch.autograd.grad(objective, mask)
    assert scores.max() > 0
    assert noisy[2][0, 0] == scores[0].argmax()
    assert (noisy[2] != plain[2]).any(), "the noise is large enough to matter here"
    assert input_noise(context, 0.0, 3) is None


def test_examples_do_not_depend_on_those_beside_them() -> None:
    lab = bench()
    context = lab.context(lab.transition(lab.params(4)))
    some = ablate(context, context.function(0), lab.examples.take(np.array([2, 6])), lab.federation.population, 3)
    alone = ablate(context, context.function(0), lab.examples.take(np.array([6])), lab.federation.population, 3)
    np.testing.assert_allclose(some[0][1], alone[0][0], rtol=1e-9)
    np.testing.assert_array_equal(some[2][1], alone[2][0])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (SmallCNN(), [("pool1", 16, 1), ("pool2", 32, 1)]),
        (ResNet8(width=4), [("activation", 4, 1), ("block1", 4, 1), ("block2", 8, 1), ("pool", 16, 1)]),
    ],
)
def test_units_of_convolutions_are_channels(model: Any, expected: list[tuple[str, int, int]]) -> None:
    lab = bench()
    network = model.build((1, 8, 8), 4)
    layers = unit_layers(network, lab.federation)
    assert layers == expected
    mask = torch.ones(2, sum(width for _, width, _ in layers))
    mask[1, : layers[0][1]] = 0.0  # all of the first layer: a single unit may be dead
    x = torch.rand(1, 1, 8, 8).repeat(2, 1, 1, 1)
    with mask_outputs(network, layers, mask):
        both = network(x)
    np.testing.assert_allclose(both[0].detach(), network(x)[0].detach(), rtol=1e-5)
    assert not torch.allclose(both[0], both[1]), "units are zeroed for one row alone"
    assert not any(module._forward_hooks for module in network.modules())
