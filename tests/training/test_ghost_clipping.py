"""Tests of `fedmem/training/ghost_clipping.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from fedmem.contracts.client import PerExample
from fedmem.training.ghost_clipping import Layers
from fedmem.training.per_example import ClippedSums, clipped_sums
from tests.clients.dp_sgd_helpers import batch_of, convolved, gated, linear, naive


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("network", [linear, gated, convolved])
def test_each_example_is_clipped_by_itself(network: Any, wild: bool) -> None:
    """One client by Opacus and two as a stack; a gradient that is zero or not finite counts as zero."""
    model = network()
    params, inputs, targets = batch_of(model)
    inputs[1] = 0
    if wild:
        inputs[2] = torch.inf
    expected = naive(model, params, inputs, targets, 0.3)
    _, _, alone = ClippedSums(model, PerExample(clip=0.3, noise_multiplier=1.0, expected=4.0))(params, inputs, targets)
    # the second client has another model, and one of its rows is padding
    other = {name: value * 0.7 for name, value in params.items()}
    mask = torch.ones(2, 6)
    mask[1, 4] = 0
    pair = {name: torch.stack([params[name], other[name]]) for name in params}
    twice, wanted = torch.stack([inputs, inputs]), torch.stack([targets, targets])
    outputs = lambda given, batch: functional_call(model, given, (batch,))  # noqa: E731
    layers = Layers.of(model, inputs[:2])
    assert (layers is not None) == (network is linear)
    for using in (layers, None):
        _, _, stack = clipped_sums(outputs, using, pair, twice, wanted, mask, 0.3)
        for name, value in expected.items():
            np.testing.assert_allclose(stack[name][0].numpy(), value, rtol=1e-4, atol=1e-6)
    left = [0, 1, 2, 3, 5]
    shorter = naive(model, other, inputs[left], targets[left], 0.3)
    for name, value in expected.items():
        np.testing.assert_allclose(alone[name].numpy(), value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(stack[name][1].numpy(), shorter[name], rtol=1e-4, atol=1e-6)
    # the clipped mean, which steadies training and is no privacy, is something else
    loose = naive(model, params, inputs, targets, 1e9)
    length = np.sqrt(sum(np.square(value).sum() for value in loose.values()))
    assert any(
        not np.allclose(value, loose[name] * min(1.0, 0.3 / length), rtol=0.1) for name, value in expected.items()
    )
