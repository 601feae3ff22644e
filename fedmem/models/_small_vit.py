"""A vision transformer; imported only when a network is built, because it needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedmem.models._attention import Block

if TYPE_CHECKING:
    from fedmem.models.small_vit import SmallViT


class PatchClassifier(nn.Module):
    """Images (n, channels, height, width) to logits (n, C): squares, attention between them, their mean."""

    def __init__(self, model: SmallViT, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, height, columns = shape
        patch, width = model.patch, model.width
        self.patch = patch
        self.patches = nn.Linear(channels * patch * patch, width)
        self.places = nn.Embedding((height // patch) * (columns // patch), width)
        self.blocks = nn.ModuleList(Block(width, model.heads) for _ in range(model.layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_classes)
        nn.init.normal_(self.places.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """The logits of each image."""
        squares = to_squares(images, self.patch)
        places = torch.arange(squares.shape[1], device=images.device)
        # places of each row, as of a batch, so that their gradients are those of rows too
        x = self.patches(squares) + self.places(places.expand(*squares.shape[:2]))
        for block in self.blocks:
            x = block(x, None)[0]
        logits: Tensor = self.output(self.norm(x).mean(dim=1))
        return logits


def to_squares(images: Tensor, patch: int) -> Tensor:
    """(n, squares, channels * patch * patch) the squares of images (n, channels, height, width), row after row.

    >>> import torch
    >>> to_squares(torch.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    count, channels, height, width = images.shape
    rows, columns = height // patch, width // patch
    squares = images.reshape(count, channels, rows, patch, columns, patch)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, channels * patch * patch)
