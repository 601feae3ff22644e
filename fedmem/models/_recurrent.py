"""A recurrent network over tokens; imported only when a network is built, because it needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """Token numbers (n, l) to the logits (n, l, V) of what comes next, by torch's fused kernels."""

    def __init__(self, cell: str, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.recurrent = kind(embedding, hidden, num_layers=layers, batch_first=True)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """At each place what comes after it."""
        logits: Tensor = self.output(self.recurrent(self.embedding(tokens))[0])
        return logits

    def start(self, batch: int) -> tuple[Tensor, ...]:
        """The state (batch, layers, hidden) before any token; an LSTM has two parts of it."""
        like = self.output.weight
        part = torch.zeros(
            batch, self.recurrent.num_layers, self.recurrent.hidden_size, dtype=like.dtype, device=like.device
        )
        return (part, part) if isinstance(self.recurrent, nn.LSTM) else (part,)

    def advance(self, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits (b, V) after one more token (b,) of each text, and the state."""
        # torch wants layers first
        before = tuple(part.transpose(0, 1).contiguous() for part in state)
        outputs, after = self.recurrent(
            self.embedding(tokens[:, None]), before if isinstance(self.recurrent, nn.LSTM) else before[0]
        )
        parts = after if isinstance(self.recurrent, nn.LSTM) else (after,)
        return self.output(outputs[:, 0]), tuple(part.transpose(0, 1) for part in parts)
