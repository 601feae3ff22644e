"""A multi-layer perceptron."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class MLP:
    """Flattens its input (n, *shape), then linear layers with an activation between; returns logits (n, C).

    Fields

    - `hidden`: width of each hidden layer; empty for a linear model.
    - `activation`: what follows each hidden layer.
    - `biases`: of `all` layers, of the `first` alone, or `none`. With ReLU, the last two make the network homogeneous.
      Then parameters times a > 0, biases included, give logits times a power of a.
    - `initial_scale`: what all parameters are multiplied by at the start.

    Guarantees:

    - parameters are named `hidden1.weight`, `hidden1.bias`, ..., `output.weight`, `output.bias`, in this order, without
      the biases that are left out;
    - no buffers and no randomness in the forward pass: many clients can be trained as one stack.

    >>> [name for name, _ in MLP(hidden=(8,)).build((1, 4, 4), 3).named_parameters()]
    ['hidden1.weight', 'hidden1.bias', 'output.weight', 'output.bias']
    """

    stackable: ClassVar[bool] = True

    hidden: tuple[Annotated[int, annotated_types.Ge(1)], ...] = (64,)
    activation: Literal["relu", "tanh", "sigmoid"] = "relu"
    biases: Annotated[Literal["all", "first", "none"], "identity_neutral"] = "all"
    initial_scale: Annotated[float, annotated_types.Gt(0), "identity_neutral"] = 1.0

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        import torch
        from torch import nn

        activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[self.activation]
        with_bias = {"all": len(self.hidden) + 1, "first": 1, "none": 0}[self.biases]
        network = nn.Sequential()
        network.add_module("flatten", nn.Flatten())
        width = math.prod(input_shape)
        for i, units in enumerate(self.hidden, start=1):
            network.add_module(f"hidden{i}", nn.Linear(width, units, bias=i <= with_bias))
            network.add_module(f"activation{i}", activation())
            width = units
        network.add_module("output", nn.Linear(width, num_classes, bias=len(self.hidden) < with_bias))
        if self.initial_scale != 1:
            with torch.no_grad():
                for value in network.parameters():
                    value.mul_(self.initial_scale)
        return network
