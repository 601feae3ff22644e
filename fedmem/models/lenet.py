"""The convolutional network with smooth activations that gradient inversion is usually shown on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LeNet:
    """Three 5x5 convolutions with padding 2 and strides 2, 2 and 1, each with an activation, and one linear layer.

    Logits (n, C) of images (n, channels, height, width). It is called LeNet in the work on gradients that leak, where
    sigmoid activations make the gradient smooth in the image. With `relu` most attacks find much less.

    Not `stackable`, as `small_cnn` and for the same reason.

    Fields

    - `channels`: output channels of each convolution.
    - `activation`: what follows each convolution.
    - `spread`: weights and biases are drawn uniformly from -spread to spread, as Zhu et al. did with 0.5. If left out,
      they are drawn by torch's own rule.

    Guarantees:

    - parameters are named `conv1`, `conv2`, `conv3`, `output`, each with `weight` and `bias`, in this order;
    - no buffers and no randomness in the forward pass.

    Errors: `ComponentError` if the inputs are no images.

    >>> sum(parameter.numel() for parameter in LeNet().build((1, 28, 28), 10).parameters())
    13426

    Reference: Zhu, Liu and Han (2019), Deep Leakage from Gradients; after LeCun et al. (1998).
    """

    stackable: ClassVar[bool] = False
    stackable_on_gpu: ClassVar[bool] = True

    channels: Annotated[int, annotated_types.Ge(1)] = 12
    activation: Literal["sigmoid", "tanh", "relu"] = "sigmoid"
    spread: Annotated[float, annotated_types.Gt(0)] | None = None

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, from torch's own generator."""
        if len(input_shape) != 3:
            raise ComponentError(
                "model.kind",
                f"lenet needs images (channels, height, width), but inputs have shape {tuple(input_shape)}; choose "
                "`model: {kind: mlp}`",
            )
        from torch import nn

        activation = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}[self.activation]
        network = nn.Sequential()
        before, height, width = input_shape
        for i, stride in enumerate((2, 2, 1), start=1):
            network.add_module(f"conv{i}", nn.Conv2d(before, self.channels, kernel_size=5, stride=stride, padding=2))
            network.add_module(f"activation{i}", activation())
            before, height, width = self.channels, -(-height // stride), -(-width // stride)
        network.add_module("flatten", nn.Flatten())
        network.add_module("output", nn.Linear(before * height * width, num_classes))
        if self.spread is not None:
            for parameter in network.parameters():
                nn.init.uniform_(parameter, -self.spread, self.spread)
        return network
