"""A residual network of eight layers with GroupNorm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ResNet8:
    """A 3x3 convolution, three residual blocks of two, global average pooling, one linear layer; logits (n, C).

    The smallest of the networks that He et al. made for small images (6n + 2 layers, n = 1). Blocks have `width`, 2
    `width` and 4 `width` channels. The second and the third halve height and width, and their inputs are projected by a
    1x1 convolution. For images (channels, height, width) of at least 4x4 pixels. GroupNorm instead of BatchNorm by
    default: running statistics would carry information about members past the parameters. With `norm: batch` the
    scenario has to say what becomes of them.

    Not `stackable`, as `small_cnn` and for the same reason. It trains correctly as a stack of clients, but on a CPU
    that is much slower on images of 28x28 and gains little on 8x8.

    Fields

    - `width`: channels of the first block.
    - `groups`: groups of each GroupNorm; must divide `width`.
    - `norm`: GroupNorm (`group`) or BatchNorm (`batch`).

    Guarantees:

    - parameters are named after `stem`, `norm`, `block1`, `block2`, `block3` and `output`, in this order;
    - no randomness in the forward pass, and no buffers but the statistics of BatchNorm.

    Errors: `ComponentError` if the inputs are not images of that size or `groups` does not divide `width`.

    >>> sum(parameter.numel() for parameter in ResNet8().build((1, 8, 8), 10).parameters())
    77562

    Reference: He, Zhang, Ren and Sun (2016), Deep Residual Learning for Image Recognition; Wu and He (2018), Group
    Normalization.
    """

    stackable: ClassVar[bool] = False
    stackable_on_gpu: ClassVar[bool] = True

    width: Annotated[int, annotated_types.Ge(1)] = 16
    groups: Annotated[int, annotated_types.Ge(1)] = 4
    norm: Annotated[Literal["group", "batch"], "identity_neutral"] = "group"

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        if len(input_shape) != 3 or min(input_shape[1:]) < 4:
            raise ComponentError(
                "model.kind",
                f"resnet8 needs images (channels, height, width) of at least 4x4, but inputs have shape "
                f"{tuple(input_shape)}; choose `model: {{kind: mlp}}`",
            )
        if self.norm == "group" and self.width % self.groups:
            allowed = [groups for groups in range(1, self.width + 1) if self.width % groups == 0]
            raise ComponentError(
                "model.groups",
                f"{self.groups} groups do not divide the width {self.width}; use one of {', '.join(map(str, allowed))}",
            )
        from torch import nn

        from fedmem.models._residual import Residual, norm_layer

        groups = self.groups if self.norm == "group" else None
        network = nn.Sequential()
        network.add_module("stem", nn.Conv2d(input_shape[0], self.width, kernel_size=3, padding=1, bias=False))
        network.add_module("norm", norm_layer(self.width, groups))
        network.add_module("activation", nn.ReLU())
        before = self.width
        for i, stride in enumerate((1, 2, 2), start=1):
            after = before * stride
            network.add_module(f"block{i}", Residual(before, after, stride, groups))
            before = after
        network.add_module("pool", nn.AdaptiveAvgPool2d(1))
        network.add_module("flatten", nn.Flatten())
        network.add_module("output", nn.Linear(before, num_classes))
        return network
