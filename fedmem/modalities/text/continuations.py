"""Greedy continuations of many texts at once, and how near they come to the true ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.modalities.text.language_model import CausalModel

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLEU_ORDER = 4
"""The longest n-grams that BLEU counts, and the fewest tokens for which it is defined."""


def continue_greedily(model: CausalModel, prefixes: Ints, length: int) -> Ints:
    """(n, length) tokens after each of n texts `prefixes` (n, k), the most probable token at each place.

    Guarantees:

    - of equally likely tokens the lowest number is written; a token whose logit is NaN is not written, unless there is
      no other;
    - deterministic; each text depends on its own prefix alone, up to the rounding of a batch.

    >>> import torch
    >>> class Counts:
    ...     def start(self, batch): return (torch.zeros(batch),)
    ...     def advance(self, state, tokens): return 9.0 * torch.eye(5)[(tokens + 1) % 5], state
    >>> continue_greedily(Counts(), np.array([[0, 2], [1, 1]]), 3).tolist()
    [[3, 4, 0], [2, 3, 4]]
    """
    import torch

    count, given = prefixes.shape
    assert given >= 1
    written = np.empty((count, length), dtype=np.int64)
    if not count:
        return written
    state = model.start(count)
    for place in range(given):
        logits, state = model.advance(state, torch.from_numpy(np.ascontiguousarray(prefixes[:, place])))
    for place in range(length):
        numbers = logits.double().numpy()
        written[:, place] = np.where(np.isnan(numbers), -np.inf, numbers).argmax(axis=1)
        if place + 1 < length:
            logits, state = model.advance(state, torch.from_numpy(np.ascontiguousarray(written[:, place])))
    return written


def common_prefixes(texts: Ints, others: Ints) -> Ints:
    """(n,) the number of tokens at the beginning that two texts share, row by row of (n, length).

    >>> common_prefixes(np.array([[1, 2, 3], [0, 2, 3]]), np.array([[1, 2, 4], [1, 2, 3]])).tolist()
    [2, 0]
    """
    return np.asarray(np.logical_and.accumulate(texts == others, axis=1).sum(axis=1))


def edit_distances(texts: Ints, others: Ints) -> Ints:
    """(n,) the fewest tokens put in, left out or replaced to make one text the other, row by row (Levenshtein, 1966).

    Row by row equal to `generation.edit_distance`, of equally long rows (n, length), all rows at once.

    >>> edit_distances(np.array([[1, 2, 3, 4], [1, 1, 1, 1]]), np.array([[2, 3, 5, 4], [1, 1, 1, 1]])).tolist()
    [2, 0]
    """
    count, length = texts.shape
    places = np.arange(length + 1)
    row = np.broadcast_to(places, (count, length + 1))
    for i in range(length):
        # the best without putting in a token of the second text, then with as many as are needed
        changed = row[:, :-1] + (texts[:, i : i + 1] != others)
        without = np.concatenate([np.full((count, 1), i + 1), np.minimum(changed, row[:, 1:] + 1)], axis=1)
        row = np.minimum.accumulate(without - places, axis=1) + places
    return np.asarray(row[:, -1])


def bleu(text: Ints, truth: Ints) -> float:
    """BLEU of two equally long texts, 0..1: the geometric mean of the shares of n-grams of `text` that `truth` has.

    n is 1 to 4, an n-gram counts as often as both have it, and nothing is smoothed. So BLEU is 0 where no four tokens
    in a row are shared, and 1 only for the same text. Equal lengths have no brevity penalty. NaN below four tokens.

    >>> round(bleu(np.arange(8), np.array([0, 1, 2, 3, 4, 5, 6, 9])), 3), bleu(np.arange(3), np.arange(3))
    (0.841, nan)

    Reference: Papineni, Roukos, Ward and Zhu (2002), BLEU: a method for automatic evaluation of machine translation.
    """
    assert text.shape == truth.shape
    if len(text) < BLEU_ORDER:
        return float("nan")
    shares = []
    for order in range(1, BLEU_ORDER + 1):
        shared = _ngrams(text, order) & _ngrams(truth, order)
        shares.append(shared.total() / (len(text) - order + 1))
    return float(np.prod(shares) ** (1 / BLEU_ORDER))


def _ngrams(text: Ints, order: int) -> Counter[Any]:
    """How often a text has each of its n-grams."""
    tokens = text.tolist()
    return Counter(tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1))
