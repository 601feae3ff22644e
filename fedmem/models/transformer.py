"""A small transformer that predicts the next token, written of products and softmaxes that can be stacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Token numbers (n, l) int64 to logits (n, l, V), for any l up to L, the length of a row of the data.

    Decoder blocks with the norm before each part (Radford et al., 2019), and learned positions. Each block has
    attention of `heads` heads to this place and those before it. Two linear layers with GELU follow, four times as wide
    between. The output of both parts is added to their input. No dropout. The network also has `start(batch)` and
    `advance(state, tokens)`, which read one token of each text at a time and remember keys and values, for a search.

    Fields

    - `width`: numbers that stand for a place; a multiple of `heads`.
    - `heads`: of each attention, each of `width / heads`.
    - `layers`: how many blocks.

    Guarantees:

    - causal: the logits at a place depend on the token there and those before it alone;
    - token by token it gives the same logits as all at once, up to rounding;
    - neither buffers nor dropout: many clients can be trained as one stack.

    Errors: `ComponentError` for inputs that are no rows of tokens, and a width that the heads do not divide.

    >>> network = Transformer(width=8, heads=2, layers=1).build((10,), 20)
    >>> sum(value.numel() for value in network.parameters()), [part.shape[1:] for part in network.start(2)]
    (1308, [torch.Size([1, 2, 0, 4]), torch.Size([1, 2, 0, 4])])

    References: Vaswani et al. (2017), Attention Is All You Need; Radford et al. (2019), for where the norms are.
    """

    stackable: ClassVar[bool] = True
    texts: ClassVar[bool] = True

    width: Annotated[int, annotated_types.Ge(1)] = 32
    heads: Annotated[int, annotated_types.Ge(1)] = 4
    layers: Annotated[int, annotated_types.Ge(1)] = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            below = self.width // self.heads * self.heads
            widths = [str(width) for width in (below, below + self.heads) if width]
            raise ComponentError(
                "width", f"{self.width} cannot be divided among {self.heads} heads; use {' or '.join(widths)}"
            )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, from torch's own generator."""
        from fedmem.models._attention import Decoder

        if len(input_shape) != 1:
            message = f"transformer reads rows of tokens, but inputs have shape {input_shape}; use a model for images"
            raise ComponentError("model.kind", message)
        return Decoder(num_classes, input_shape[0], self.width, self.heads, self.layers)
