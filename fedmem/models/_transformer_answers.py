"""The answers of transformers: the next token at each place, or the class of a text; needs torch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn


class NextTokens(nn.Module):
    """Token numbers (n, l) to the logits (n, l, V) of what comes next.

    The mask is made of shapes alone, so that `torch.vmap` can run it.
    """

    def __init__(self, network: Any, size: int) -> None:
        super().__init__()
        self.network = network
        self.size = size
        can_keep = "logits_to_keep" in inspect.signature(network.forward).parameters
        self._last_alone = {"logits_to_keep": 1} if can_keep else {}

    def forward(self, tokens: Tensor) -> Tensor:
        """At each place what comes after it."""
        return self._logits(tokens)

    def start(self, batch: int) -> tuple[Tensor, ...]:
        """Texts without a token. A state is the tokens so far, which are read again with each further one."""
        return (torch.empty(batch, 0, dtype=torch.int64),)

    def advance(self, state: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The logits (b, V) after one more token (b,) of each text, without those at the places before it."""
        texts = torch.cat((state[0], tokens[:, None]), dim=1)
        return self._logits(texts, **self._last_alone)[:, -1], (texts,)

    def _logits(self, tokens: Tensor, **others: Any) -> Tensor:
        count, length = tokens.shape
        if not count:
            return _no_rows(self.network, length, self.size)
        later = torch.ones(length, length, dtype=torch.bool, device=tokens.device).triu(1)
        mask = _mask(later.expand(count, 1, length, length), self.network)
        logits: Tensor = self.network(input_ids=tokens, attention_mask=mask, use_cache=False, **others).logits
        return logits[..., : self.size]

    def library_logits(self, tokens: Tensor) -> Tensor:
        """The logits of the package with a mask of its own."""
        everywhere = torch.ones_like(tokens)
        logits: Tensor = self.network(input_ids=tokens, attention_mask=everywhere, use_cache=False).logits
        return logits[..., : self.size]


class OneClass(nn.Module):
    """Token numbers (n, l), -1 after the end of a text, to the logits (n, C) of its class.

    Decoders answer at the last token of a text, and their layer `score` is its head. Encoders answer as they do.
    """

    def __init__(self, network: Any, padding: int) -> None:
        super().__init__()
        self.network = network
        self.padding = padding

    def forward(self, tokens: Tensor) -> Tensor:
        """One row of logits for each text."""
        count, length = tokens.shape
        if not count:
            return _no_rows(self.network, self.network.config.num_labels)
        hidden = (tokens < 0)[:, None, None, :].expand(count, 1, length, length)
        if self._decodes:
            places = torch.arange(length, device=tokens.device)
            hidden = hidden | (places > places[:, None])
        return self._logits(tokens, _mask(hidden, self.network))

    def library_logits(self, tokens: Tensor) -> Tensor:
        """The logits of the package with a mask of its own."""
        return self._logits(tokens, (tokens >= 0).long())

    @property
    def _decodes(self) -> bool:
        return hasattr(self.network, "score")

    def _logits(self, tokens: Tensor, mask: Tensor) -> Tensor:
        ids = torch.where(tokens < 0, self.padding, tokens)
        if not self._decodes:
            encoded: Tensor = self.network(input_ids=ids, attention_mask=mask).logits
            return encoded
        states = self.network.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        # the last token of each text, picked by a product since indices that differ by row cannot be stacked
        counts = (tokens >= 0).sum(dim=1)
        last = torch.arange(tokens.shape[1], device=tokens.device) == counts[:, None] - 1
        logits: Tensor = self.network.score((states * last[..., None].to(states.dtype)).sum(dim=1))
        return logits


def _no_rows(network: Any, *shape: int) -> Tensor:
    """The logits of no row at all, which the package cannot make; they follow from a parameter, as all logits do."""
    parameter: Tensor = next(network.parameters())
    return parameter.sum() * parameter.new_zeros(0, *shape)


def _mask(hidden: Tensor, network: Any) -> Tensor:
    """The addend of the scores of attention: 0, or as little as the type has where a place is hidden."""
    dtype = next(network.parameters()).dtype
    zeros = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return zeros.masked_fill(hidden, torch.finfo(dtype).min)
