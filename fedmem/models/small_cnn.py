"""A small convolutional network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SmallCNN:
    """Two blocks of 3x3 convolution, normalisation, activation and 2x2 pooling, then one linear layer; logits (n, C).

    For images (channels, height, width) of at least 4x4 pixels, such as 1x8x8 and 1x28x28. GroupNorm instead of
    BatchNorm by default: running statistics would carry information about members past the parameters. With
    `norm: batch` the scenario has to say what becomes of them.

    Not `stackable`: the network would train correctly as a stack of clients. But convolutions with per-client weights
    become grouped convolutions, which are slower on a CPU than one client after another. It is
    `stackable_on_gpu`.

    Fields

    - `channels`: output channels of the two convolutions.
    - `groups`: groups of each GroupNorm; must divide both.
    - `norm`: GroupNorm (`group`) or BatchNorm (`batch`).
    - `activation`: what follows each normalisation.
    - `pooling`: the largest (`max`) or the mean (`mean`) of 2x2 values.

    Guarantees:

    - parameters are named `conv1`, `norm1`, `conv2`, `norm2`, `output`, each with `weight` and `bias`, in this order;
    - no randomness in the forward pass, and no buffers but the statistics of BatchNorm.

    Errors: `ComponentError` if the inputs are not images of that size or `groups` does not divide the channels.

    >>> sum(parameter.numel() for parameter in SmallCNN().build((1, 8, 8), 10).parameters())
    6186

    Reference: Wu and He (2018), Group Normalization.
    """

    stackable: ClassVar[bool] = False
    stackable_on_gpu: ClassVar[bool] = True

    channels: tuple[Annotated[int, annotated_types.Ge(1)], Annotated[int, annotated_types.Ge(1)]] = (16, 32)
    groups: Annotated[int, annotated_types.Ge(1)] = 4
    norm: Annotated[Literal["group", "batch"], "identity_neutral"] = "group"
    activation: Annotated[Literal["relu", "tanh", "sigmoid", "silu"], "identity_neutral"] = "relu"
    pooling: Annotated[Literal["max", "mean"], "identity_neutral"] = "max"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise ComponentError(
                "model.kind",
                f"small_cnn needs images (channels, height, width) of at least 4x4, but inputs have shape "
                f"{tuple(input_shape)}; choose `model: {{kind: mlp}}`",
            )
        if self.norm == "group" and any(width % self.groups for width in self.channels):
            raise ComponentError(
                "model.groups", f"{self.groups} groups do not divide the channels {list(self.channels)}; use 1, 2 or 4"
            )
        from torch import nn

        activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "silu": nn.SiLU}[self.activation]
        network = nn.Sequential()
        before, height, width = input_shape
        for i, after in enumerate(self.channels, start=1):
            network.add_module(f"conv{i}", nn.Conv2d(before, after, kernel_size=3, padding=1))
            norm = nn.GroupNorm(self.groups, after) if self.norm == "group" else nn.BatchNorm2d(after)
            network.add_module(f"norm{i}", norm)
            network.add_module(f"activation{i}", activation())
            network.add_module(f"pool{i}", nn.MaxPool2d(2) if self.pooling == "max" else nn.AvgPool2d(2))
            before, height, width = after, height // 2, width // 2
        network.add_module("flatten", nn.Flatten())
        network.add_module("output", nn.Linear(before * height * width, num_classes))
        return network
