"""The block of a residual network; imported only when a network is built, because it needs torch."""

from __future__ import annotations

from torch import Tensor, nn


def norm_layer(channels: int, groups: int | None) -> nn.GroupNorm | nn.BatchNorm2d:
    """GroupNorm with so many groups; without a number, BatchNorm."""
    return nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)


class Residual(nn.Module):
    """Two 3x3 convolutions with normalisation, added to the input, or to its projection where the shapes differ."""

    def __init__(self, before: int, after: int, stride: int, groups: int | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = norm_layer(after, groups)
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.norm2 = norm_layer(after, groups)
        same_shape = stride == 1 and before == after
        self.project = (
            nn.Identity() if same_shape else nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, after, height / stride, width / stride), rounded up."""
        inner = self.norm1(self.conv1(inputs)).relu()
        outputs: Tensor = (self.norm2(self.conv2(inner)) + self.project(inputs)).relu()
        return outputs
