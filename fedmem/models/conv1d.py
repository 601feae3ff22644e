"""A small convolutional network over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Conv1d:
    """Two blocks of convolution over time, GroupNorm, activation and pooling of 2, then a linear layer.

    Logits (n, C) of series (n, channels, length) of at least 4 places. By default means instead of maxima keep the
    network smooth, so that its gradients can be matched. Not `stackable`, as `small_cnn` and for the same reason.

    Fields

    - `width`: output channels of both convolutions.
    - `kernel`: places that a convolution sees, an odd number.
    - `groups`: groups of each GroupNorm; must divide the width.
    - `activation`: what follows each GroupNorm.
    - `pooling`: the mean (`mean`) or the largest (`max`) of two values.

    Guarantees:

    - parameters are named `conv1`, `norm1`, `conv2`, `norm2`, `output`, each with `weight` and `bias`, in this order;
    - no buffers and no randomness in the forward pass.

    Errors: `ComponentError` if the inputs are no series of that length, `kernel` is even, or `groups` does not divide
    the width.

    >>> sum(parameter.numel() for parameter in Conv1d().build((1, 64), 3).parameters())
    2227

    Reference: Wang, Yan and Oates (2017), Time Series Classification from Scratch with Deep Neural Networks.
    """

    stackable: ClassVar[bool] = False
    stackable_on_gpu: ClassVar[bool] = True

    width: Annotated[int, annotated_types.Ge(1)] = 16
    kernel: Annotated[int, annotated_types.Ge(1)] = 5
    groups: Annotated[int, annotated_types.Ge(1)] = 4
    activation: Annotated[Literal["silu", "relu", "tanh", "sigmoid"], "identity_neutral"] = "silu"
    pooling: Annotated[Literal["mean", "max"], "identity_neutral"] = "mean"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        if len(input_shape) != 2 or input_shape[1] < 4:
            raise ComponentError(
                "model.kind",
                f"conv1d reads series (channels, length) of at least 4 places, but inputs have shape "
                f"{tuple(input_shape)}; choose `model: {{kind: mlp}}`",
            )
        if self.kernel % 2 == 0:
            raise ComponentError("model.kernel", f"{self.kernel} is even; use {self.kernel + 1}")
        if self.width % self.groups:
            raise ComponentError("model.groups", f"{self.groups} groups do not divide the width {self.width}; use 1")
        from torch import nn

        activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "silu": nn.SiLU}[self.activation]
        network = nn.Sequential()
        before, length = input_shape
        for i in (1, 2):
            network.add_module(f"conv{i}", nn.Conv1d(before, self.width, self.kernel, padding=self.kernel // 2))
            network.add_module(f"norm{i}", nn.GroupNorm(self.groups, self.width))
            network.add_module(f"activation{i}", activation())
            network.add_module(f"pool{i}", nn.AvgPool1d(2) if self.pooling == "mean" else nn.MaxPool1d(2))
            before, length = self.width, length // 2
        network.add_module("flatten", nn.Flatten())
        network.add_module("output", nn.Linear(before * length, num_classes))
        return network
