"""The network of the arms of classes: a multi-layer perceptron, as a whole, by adapters of low rank, or its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fedmem.models.mlp import MLP

HIDDEN = (128, 128)


class AdaptedLinear(nn.Linear):
    """`W x + b + 2 B A x`: A (r, in) is drawn and B (out, r) is zero, as `fedmem.models._lora.Lora` has them.

    >>> layer = AdaptedLinear(nn.Linear(4, 3), 2)
    >>> sorted(name for name, _ in layer.named_parameters())
    ['bias', 'lora_a', 'lora_b', 'weight']
    """

    def __init__(self, like: nn.Linear, r: int) -> None:
        super().__init__(like.in_features, like.out_features)
        self.lora_a = nn.Parameter(torch.empty(r, like.in_features))
        self.lora_b = nn.Parameter(torch.zeros(like.out_features, r))
        nn.init.kaiming_uniform_(self.lora_a, a=5**0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """The layer and its adapter."""
        return super().forward(rows) + 2 * (rows @ self.lora_a.T) @ self.lora_b.T


class AdaptedMlp(nn.Sequential):
    """The network of `mlp`, of which clients train all, the last layer, or that and adapters of rank `r` in all others.

    Weights have the names of `mlp`, so that those of a run of it can be taken over.
    """

    stackable = True

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, train: Literal["all", "head"] = "all", r: int = 0
    ) -> None:
        super().__init__()
        for name, part in MLP(hidden=HIDDEN).build(tuple(input_shape), num_classes).named_children():
            if isinstance(part, nn.Linear) and r and name != "output":
                part = AdaptedLinear(part, r)
            self.add_module(name, part)
        is_part = bool(r) or train == "head"
        for name, value in self.named_parameters():
            value.requires_grad_(not is_part or "lora_" in name or name.startswith("output."))
