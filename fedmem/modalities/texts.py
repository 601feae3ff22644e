"""How much of rebuilt texts is right, as bags of tokens and as sequences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.types import FloatArray, IntArray
from fedmem.modalities.images import assign


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


def usual(rows: IntArray) -> IntArray:
    """(1, W) of n rows (n, W), -1 after their ends, the commonest entry at each place, of equal ones the lowest.

    >>> usual(np.array([[3, 5, -1], [3, 4, -1], [2, 4, 7]])).tolist()
    [[3, 4, -1]]
    """
    return np.array([[np.bincount(column + 1).argmax() - 1 for column in rows.T]], dtype=np.int64)


def in_proportion(rows: IntArray, width: int | None = None) -> IntArray:
    """(1, W) a row with tokens as frequent as in n rows (n, L), as nearly as W places allow, in order of number.

    Each token gets the whole part of its share of W, and places that are left go to the largest remainders, of equal
    ones the lowest number. Rows without any token give -1. W is `width`, and L where that is left out.

    >>> in_proportion(np.array([[7, 5, 5], [5, 7, 5]])).tolist()
    [[5, 5, 7]]
    """
    width = rows.shape[1] if width is None else width
    counts = np.bincount(rows[rows >= 0])
    if not counts.sum():
        return np.full((1, width), -1, dtype=np.int64)
    # in whole numbers, where equal remainders are equal
    given, left = np.divmod(width * counts, counts.sum())
    given[np.argsort(-left, kind="stable")[: width - given.sum()]] += 1
    return np.repeat(np.arange(len(counts)), given)[None]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How alike sequences are: `tokens`, the share of tokens that both have, as multisets, and `in_place`, that of
    places with the same token; both of the tokens of the longer of the two, 0..1, higher is more alike. `both` is the
    mean of the two, 1 if and only if the sequences are the same; equal means are equal to the last bit.
    """

    tokens: FloatArray
    in_place: FloatArray
    both: FloatArray


def likeness(found: IntArray, truth: IntArray) -> Likeness:
    """(m, n) how alike every one of m sequences (m, W) is to every one of n (n, W); -1 after their ends is no token.

    Two sequences without any token are not alike.

    >>> alike = likeness(np.array([[4, 4, 1], [4, 1, -1]]), np.array([[4, 1, -1]]))
    >>> alike.tokens.round(2).tolist(), alike.in_place.round(2).tolist()
    ([[0.67], [1.0]], [[0.33], [1.0]])
    """
    size = max(int(found.max(initial=0)), int(truth.max(initial=0))) + 1
    counts = np.zeros((len(found), size), dtype=np.int64)
    np.add.at(counts, (np.nonzero(found >= 0)[0], found[found >= 0]), 1)
    lengths = (found >= 0).sum(axis=1)
    tokens, in_place, both = np.zeros((3, len(found), len(truth)))
    for j, row in enumerate(truth):
        kinds, times = np.unique(row[row >= 0], return_counts=True)
        longer = np.maximum(lengths, times.sum()).clip(min=1)
        shared = np.minimum(counts[:, kinds], times).sum(axis=1)
        same = ((found == row) & (row >= 0)).sum(axis=1)
        # the sum of two quotients would depend on how it is split, and break ties by rounding
        tokens[:, j], in_place[:, j], both[:, j] = shared / longer, same / longer, (shared + same) / (2 * longer)
    return Likeness(tokens=tokens, in_place=in_place, both=both)


def in_order(found: IntArray, truth: IntArray) -> float:
    """The length of the longest common subsequence of two sequences (W,), as a share of the longer, 0..1; -1 is none.

    0 where neither has a token.

    >>> in_order(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4]))
    0.75

    Reference: Lin (2004), ROUGE-L, is built on the same.
    """
    first, second = (tokens[tokens >= 0] for tokens in (found, truth))
    row = np.zeros(len(second) + 1, dtype=np.int64)
    for token in first:
        longer = np.concatenate([[0], np.where(second == token, row[:-1] + 1, row[1:])])
        row = np.maximum.accumulate(np.maximum(longer, row))
    return int(row[-1]) / max(len(first), len(second), 1)
