"""The first layer of a network for tables; imported only when a network is built, because it needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Embedded(nn.Module):
    """Numbers as they are, and each one-hot block of k categories through a linear layer without bias: its embedding.

    The layer of the block at position i is called `block{i}`. Indices instead of one-hots would need no product, but
    then inputs would have no gradient, which attacks on gradients ask for.
    """

    def __init__(self, blocks: Sequence[int], embedding: int) -> None:
        super().__init__()
        self._sizes = list(blocks)
        self._names = [f"block{i}" if size > 1 else "" for i, size in enumerate(blocks)]
        self.width = 0
        for name, size in zip(self._names, blocks, strict=True):
            if name:
                layer = nn.Linear(size, min(embedding, size), bias=False)
                # the rule of torch's own embeddings
                nn.init.normal_(layer.weight)
                self.add_module(name, layer)
            self.width += min(embedding, size) if name else 1

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, width) from (n, sum of the blocks)."""
        parts = torch.split(inputs, self._sizes, dim=1)
        return torch.cat(
            [self.get_submodule(name)(part) if name else part for name, part in zip(self._names, parts, strict=True)],
            dim=1,
        )
