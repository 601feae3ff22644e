"""Independent binary pixels: a density whose likelihood, fit and leave-one-out values have closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class IndependentPixels:
    """p(x) = ∏_d p_d^{x_d} (1 − p_d)^{1 − x_d} for binary images (n, *shape), with p_d = 1 / (1 + exp(−logit_d)).

    Its output (n, 1) is log p(x) in nats, at most 0. No pixel depends on another, so that samples look like no image.
    It is a reference for other densities, and for tests: the best p_d is the share of images whose pixel d is 1.

    Fields: none.

    Guarantees:

    - one parameter, `logits` (D,), which begins between −0.1 and 0.1: every image has log p of about −D log 2;
    - no randomness in the forward pass: many clients can be trained as one stack.

    >>> import torch
    >>> network = IndependentPixels().build((1, 2, 2), 1)
    >>> round(network(torch.ones(1, 1, 2, 2)).exp().item(), 1)
    0.1
    """

    stackable: ClassVar[bool] = True
    densities: ClassVar[bool] = True
    binary_inputs: ClassVar[bool] = True

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A network of one parameter for each pixel, drawn from torch's own generator."""
        from fedmem.models._densities import IndependentNetwork

        return IndependentNetwork(math.prod(input_shape), tuple(input_shape))
