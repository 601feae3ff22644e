"""Whether a model gives a text away: what it writes when it is given the beginning, and how often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmem.modalities.text.language_model import CausalModel, read_prefix

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """The continuations of a text, most probable first: `tokens` (w, length), `loss` (w,) -log p in nats; `calls`."""

    tokens: Ints
    loss: Floats
    calls: int


def beam(model: CausalModel, prefix: Sequence[int], length: int, width: int = 1) -> Continuations:
    """Write `length` tokens after a text, keeping at each step the `width` most probable continuations so far.

    Width 1 is greedy: the most probable token at each place. Any token of the vocabulary may be written, not only those
    of a template. The first is what someone would see who takes the best; whether a secret is among all is extraction
    by beam search. A beam finds no more than it keeps: the most probable text of all may begin with an unlikely token.

    Guarantees:

    - the greedy continuation is that of width 1, and a width of all texts there are gives them in order of likelihood;
    - of equally likely tokens the lowest number comes first; a token whose probability is NaN is not written, unless
      there is no other;
    - deterministic; fewer than `width` rows where there are fewer continuations.

    >>> class Counts:
    ...     def start(self, batch): return (torch.zeros(batch),)
    ...     def advance(self, state, tokens): return 9.0 * torch.eye(5)[(tokens + 1) % 5], state
    ...     def select(self, state, rows): return (state[0][rows],)
    >>> import torch
    >>> beam(Counts(), [2], 4).tokens.tolist()
    [[3, 4, 0, 1]]

    Reference: Thakkar, Ramaswamy, Mathews and Beaufays (2021), for beam search of width 5 after the first tokens.
    """
    import torch

    assert width >= 1
    assert length >= 1
    logits, state = read_prefix(model, prefix)
    calls = len(prefix)
    texts, loss = np.empty((1, 0), dtype=np.int64), np.zeros(1)
    for place in range(length):
        cost = -logits.double().log_softmax(dim=1).numpy()
        totals = np.nan_to_num(loss[:, None] + cost, nan=np.inf, posinf=np.inf).ravel()
        best = np.argsort(totals, kind="stable")[:width]
        rows, tokens = np.divmod(best, cost.shape[1])
        texts, loss = np.concatenate([texts[rows], tokens[:, None]], axis=1), totals[best]
        if place + 1 < length:
            branch_state = model.select(state, torch.from_numpy(rows))
            logits, state = model.advance(branch_state, torch.from_numpy(tokens))
            calls += len(best)
    return Continuations(tokens=texts, loss=loss, calls=calls)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A sampler of texts: among the `top_k` most probable tokens (None: all), with logits divided by `temperature`.

    Of tokens that are equally likely those with the lowest numbers are among the k.

    >>> Sampling(top_k=2).shares(np.log([[0.5, 0.3, 0.2]])).round(3).tolist()
    [[0.625, 0.375, 0.0]]
    """

    top_k: int | None = None
    temperature: float = 1.0

    def shares(self, logits: Floats) -> Floats:
        """(b, V) the probability of each token under logits (b, V)."""
        return np.exp(self.log_shares(logits))

    def log_shares(self, logits: Floats) -> Floats:
        """Log probabilities, -inf for tokens that are never drawn; NaN where a logit is NaN."""
        z = np.array(logits, dtype=np.float64) / self.temperature
        if self.top_k is not None and self.top_k < z.shape[1]:
            order = np.argsort(-z, axis=1, kind="stable")
            top_logits = np.take_along_axis(z, order[:, : self.top_k], axis=1)
            broken = np.isnan(z).any(axis=1, keepdims=True)
            z = np.full_like(z, -np.inf)
            np.put_along_axis(z, order[:, : self.top_k], top_logits, axis=1)
            z = np.where(broken, np.nan, z)
        top = z.max(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True)))


def log_probabilities(model: CausalModel, prefix: Sequence[int], rests: Ints, sampling: Sampling) -> Floats:
    """(n,) log p_z of each of `rests` (n, length), the probability that a text drawn after `prefix` begins with it.

    The product over its tokens of the probability with which each is drawn. It comes from the model and not from draws,
    so it is exact, however small. -inf .. 0; -inf where the scheme never draws it, NaN where the model says NaN.
    """
    import torch

    count, length = rests.shape
    logits, state = read_prefix(model, prefix)
    together = torch.zeros(count, dtype=torch.int64)
    logits, state = logits[together], model.select(state, together)
    total = np.zeros(count)
    for place in range(length):
        tokens = rests[:, place]
        total += sampling.log_shares(logits.double().numpy())[np.arange(count), tokens]
        if place + 1 < length:
            logits, state = model.advance(state, torch.from_numpy(np.ascontiguousarray(tokens)))
    return total


def draws_needed(log_p: float, p: float) -> float:
    """The smallest n for which a text is (n, p)-discoverable: drawn at least once in n draws with probability p.

    The smallest whole n with 1 - (1 - p_z)^n >= p, where `log_p` is log p_z and `p` is p: 1 or more, inf where p_z
    is 0 or below what a float can hold, NaN for NaN. Nothing is drawn for it, so that it has no error of sampling.

    - falls as p_z rises, rises with p;
    - p_z at least p needs one draw.

    >>> draws_needed(math.log(0.5), 0.5), draws_needed(math.log(0.5), 0.9), draws_needed(-math.inf, 0.5)
    (1, 4, inf)

    Reference: Hayes et al. (2025), Measuring memorization in language models via probabilistic extraction.
    """
    assert 0 < p < 1
    if math.isnan(log_p):
        return math.nan
    if log_p >= math.log(p):
        return 1
    p_text = math.exp(log_p)
    if p_text == 0:
        return math.inf
    n = math.log1p(-p) / math.log1p(-p_text)
    if n >= 2**52:
        return n
    # a quotient that should be whole may come out a bit above or below
    lower = max(1, math.floor(n * (1 - 1e-12)))
    return lower if 1 - (1 - p_text) ** lower >= p else math.ceil(n)


def edit_distance(first: Sequence[int] | Ints, second: Sequence[int] | Ints) -> int:
    """The fewest tokens that are put in, left out or replaced to make one text the other (Levenshtein, 1966).

    0 where they are the same, at most the length of the longer; the same in both directions.

    >>> edit_distance([1, 2, 3, 4], [2, 3, 5, 4])
    2
    """
    row = list(range(len(second) + 1))
    for i, token in enumerate(first, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (token != other))
    return row[-1]
