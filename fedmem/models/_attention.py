"""A decoder of texts; imported only when a network is built, because it needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """Token numbers (n, l) to the logits (n, l, V) of what comes next, for l up to `length`."""

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary)
        for embedding in (self.tokens, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """At each place what comes after it."""
        count, length = tokens.shape
        places = torch.arange(length, device=tokens.device)
        later = places > places[:, None]
        # places of each row, as of a batch, so that their gradients are those of rows too
        x = self.tokens(tokens) + self.places(places.expand(count, length))
        for block in self.blocks:
            x = block(x, later)[0]
        logits: Tensor = self.output(self.norm(x))
        return logits

    def start(self, batch: int) -> tuple[Tensor, ...]:
        """Keys and values (batch, layers, heads, 0, width / heads) of texts without a token."""
        like = self.output.weight
        empty = torch.zeros(
            batch,
            len(self.blocks),
            self.heads,
            0,
            like.shape[1] // self.heads,
            dtype=like.dtype,
            device=like.device,
        )
        return (empty, empty)

    def advance(self, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits (b, V) after one more token (b,) of each text, and the keys and values up to there."""
        place = state[0].shape[3]
        assert place < self.places.num_embeddings, "a text is no longer than a row of the data"
        x = (self.tokens(tokens) + self.places.weight[place])[:, None]
        layer_states: list[tuple[Tensor, Tensor]] = []
        for i, block in enumerate(self.blocks):
            x, layer_state = block(x, None, (state[0][:, i], state[1][:, i]))
            layer_states.append(layer_state)
        keys, values = (torch.stack(parts, dim=1) for parts in zip(*layer_states, strict=True))
        return self.output(self.norm(x))[:, 0], (keys, values)


class Block(nn.Module):
    """Attention, then two linear layers, each after a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.asks = nn.Linear(width, 3 * width)
        self.mixes = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widens = nn.Linear(width, 4 * width)
        self.narrows = nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, hidden: Tensor | None, before: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The output (n, l, width), and all keys and values (n, heads, l, width / heads).

        `hidden` (l, l) says which places a place must not see; `before` are the keys and values of earlier tokens.
        """
        count, length, width = x.shape
        query, key, value = (
            part.reshape(count, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.asks(self.norm1(x)).split(width, dim=2)
        )
        if before is not None:
            key, value = torch.cat((before[0], key), dim=2), torch.cat((before[1], value), dim=2)
        weights = query @ key.transpose(2, 3) / (width // self.heads) ** 0.5
        if hidden is not None:
            weights = weights.masked_fill(hidden, -torch.inf)
        attention = (weights.softmax(dim=3) @ value).transpose(1, 2).reshape(count, length, width)
        x = x + self.mixes(attention)
        x = x + self.narrows(nn.functional.gelu(self.widens(self.norm2(x))))
        return x, (key, value)
