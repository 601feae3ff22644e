"""Multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedmem.models.mlp import MLP

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """Logits W x + b (n, C) of the flattened input x: the convex model, in which least can be memorised by heart.

    Initial weights are random, not zero. With zeros every example would have the same loss at the beginning, and the
    ranks of canaries would be ties.

    Guarantees:

    - the parameters are `output.weight` (C, inputs) and `output.bias` (C,), as in `mlp` without hidden layers;
    - no buffers and no randomness in the forward pass: many clients can be trained as one stack.

    >>> sum(parameter.numel() for parameter in Logistic().build((1, 8, 8), 10).parameters())
    650

    Reference: Cox (1958), The Regression Analysis of Binary Sequences; several classes as in Theil (1969).
    """

    stackable: ClassVar[bool] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        return MLP(hidden=()).build(input_shape, num_classes)
