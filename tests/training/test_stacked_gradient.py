"""Tests of `fedmem/training/stacked_gradient.py`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from fedmem.training.stacked_gradient import StackedGradient
from tests.lab import network

MODEL = network()
NAMES = ("1.weight", "1.bias", "3.weight", "3.bias")


def outputs(params: dict[str, Tensor], inputs: Tensor) -> Tensor:
    found: Tensor = functional_call(MODEL, params, (inputs,))
    return found


def test_losses_and_gradients_equal_autograd_of_each_client() -> None:
    torch.manual_seed(0)
    params = {name: torch.randn(3, *value.shape) / 8 for name, value in MODEL.named_parameters()}
    inputs, targets = torch.rand(3, 5, 1, 8, 8), torch.randint(10, (3, 5))
    # the second client has three rows, and the third none
    mask = torch.tensor([[1.0] * 5, [1.0] * 3 + [0.0] * 2, [0.0] * 5])

    def one(inputs: Tensor, targets: Tensor, mask: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return StackedGradient.apply(outputs, NAMES, inputs, targets, mask, *values)  # type: ignore[no-any-return,no-untyped-call]

    losses, *gradients = torch.vmap(one)(inputs, targets, mask, *(params[name] for name in NAMES))
    for client, count in enumerate((5, 3)):
        leaves = {name: params[name][client].clone().requires_grad_() for name in NAMES}
        loss = cross_entropy(outputs(leaves, inputs[client, :count]), targets[client, :count])
        torch.testing.assert_close(losses[client], loss.detach())
        for found, expected in zip(gradients, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            torch.testing.assert_close(found[client], expected, rtol=1e-4, atol=1e-6)
    assert losses[2] == 0
    assert not any(found[2].any() for found in gradients)


def test_call_outside_vmap_is_refused() -> None:
    with pytest.raises(AssertionError, match="under vmap"):
        StackedGradient.apply(outputs, NAMES, torch.zeros(1))  # type: ignore[no-untyped-call]
