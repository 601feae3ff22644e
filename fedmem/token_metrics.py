"""How much of rebuilt texts is right, as bags of tokens and as sequences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fedmem.image_metrics import assign
from fedmem.types import FloatArray, IntArray


def overlap(found: IntArray, truth: IntArray, padding: int | None = None) -> int:
    """How many tokens two sequences share, counted as often as both have them; `padding` is no token.

    >>> overlap(np.array([3, 3, 5]), np.array([3, 5, 5, 7]))
    2
    """
    first, second = (
        Counter(tokens[tokens != padding].tolist() if padding is not None else tokens.tolist())
        for tokens in (found, truth)
    )
    return (first & second).total()


@dataclass(frozen=True, kw_only=True)
class TokenScores:
    """Of each of n true sequences, by the rebuilt one that stands for it.

    `recall` (n,): the share of its tokens that are found, as a multiset, 0..1, NaN of a sequence of padding alone;
    `exact` (n,): 1 where every token is found and none too many, as a multiset, else 0; `ordered` (n,): 1 where they
    also stand in their places; `place` (n,): which rebuilt sequence it is.
    """

    recall: FloatArray
    exact: FloatArray
    ordered: FloatArray
    place: IntArray


def score_tokens(found: IntArray, truth: IntArray, padding: int | None = None) -> TokenScores:
    """Pair m rebuilt sequences (m, length) with n true ones (n, length) so that most tokens are found, and count.

    Pairs are made by the Hungarian method on recall, of equally good ones those with more tokens in their places; with
    fewer rebuilt than true ones, each may stand for several. Both hold whole numbers.

    >>> scores = score_tokens(np.array([[4, 4], [2, 1]]), np.array([[1, 2], [4, 9]]))
    >>> scores.recall.tolist(), scores.exact.tolist(), scores.ordered.tolist()
    ([1.0, 0.5], [1.0, 0.0], [0.0, 0.0])
    """
    own = [row if padding is None else row[row != padding] for row in truth]
    shared = np.array([[overlap(row, true, padding) for true in truth] for row in found], dtype=np.float64)
    lengths = np.array([len(row) for row in own], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        recall = np.where(lengths > 0, shared / lengths, np.nan)
    in_place = (found[:, None] == truth[None]).mean(axis=2)
    place = assign(1.0 - np.nan_to_num(recall) - 1e-6 * in_place)
    j = np.arange(len(truth))
    counts = np.array([len(row) if padding is None else int((row != padding).sum()) for row in found])
    exact = (shared[place, j] == lengths) & (counts[place] == lengths)
    return TokenScores(
        recall=recall[place, j],
        exact=exact.astype(np.float64),
        ordered=(found[place] == truth).all(axis=1).astype(np.float64),
        place=place,
    )
