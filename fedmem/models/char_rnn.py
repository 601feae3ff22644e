"""A recurrent language model: embedding, GRU or LSTM, and the logits of the next token at every place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import annotated_types

from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class CharRnn:
    """Token numbers (n, l) int64 to logits (n, l, V); tokens may be characters, bytes or words.

    Clients are trained one by one, with the fused kernels of torch, which cannot be stacked. The network also has
    `start(batch)` and `advance(state, tokens)`, which read one token of each text at a time, for a search.

    Fields

    - `cell`: `gru` (Cho et al., 2014) or `lstm` (Hochreiter and Schmidhuber, 1997).
    - `embedding`: numbers that stand for a token.
    - `hidden`: width of each layer.
    - `layers`: how many recurrent layers.

    Guarantees:

    - causal: the logits at a place depend on the token there and those before it alone;
    - token by token it gives the same logits as all at once, up to rounding;
    - neither buffers nor dropout.

    Errors: `ComponentError` for inputs that are no rows of tokens.

    >>> network = CharRnn(embedding=4, hidden=6).build((10,), 20)
    >>> sum(value.numel() for value in network.parameters()), network.start(2)[0].shape
    (436, torch.Size([2, 1, 6]))

    Reference: Carlini et al. (2019) and Thakkar et al. (2021) measured such models.
    """

    stackable: ClassVar[bool] = False
    texts: ClassVar[bool] = True

    cell: Literal["gru", "lstm"] = "gru"
    embedding: Annotated[int, annotated_types.Ge(1)] = 32
    hidden: Annotated[int, annotated_types.Ge(1)] = 128
    layers: Annotated[int, annotated_types.Ge(1)] = 1

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A freshly initialised network, by torch's own rule and from torch's own generator."""
        from fedmem.models._recurrent import Recurrent

        if len(input_shape) != 1:
            message = f"char_rnn reads rows of tokens, but inputs have shape {input_shape}; use a model for images"
            raise ComponentError("model.kind", message)
        return Recurrent(self.cell, num_classes, self.embedding, self.hidden, self.layers)
