"""Documents cut into windows of which a model is asked for the next token, at every place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

PADDING = -1
"""In tokens: there is none. In targets: nothing is asked."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """n windows of L + 1 tokens each: `tokens` (n, L + 1), -1 after the end of a document.

    `document` (n,) is the number of the document of a window, `start` (n,) the place of its first token there.
    """

    tokens: Ints
    document: Ints
    start: Ints

    def __len__(self) -> int:
        return len(self.tokens)


def cut_windows(documents: Sequence[Ints], length: int) -> Windows:
    """The windows of documents one after the other: `length` inputs and the token after each, L + 1 tokens in all.

    A window begins where the one before it ends, including its last token. The first token of a window is therefore
    never asked for, and texts that are split by windows share no token.

    Guarantees:

    - no two windows share a place of a document; each is within one document;
    - the rest at the end is a window, padded, if it has half of one, or is all there is. A single token is no window.

    >>> found = cut_windows([np.arange(10), np.arange(3)], 3)
    >>> found.tokens.tolist(), found.start.tolist()
    ([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1], [0, 1, 2, -1]], [0, 4, 8, 0])
    """
    width = length + 1
    tokens, document, start = [], [], []
    for number, text in enumerate(documents):
        whole, rest = divmod(len(text), width)
        count = whole + (rest >= 2 and (2 * rest >= width or not whole))
        padded = np.full(count * width, PADDING, dtype=np.int64)
        padded[: len(text)] = text[: len(padded)]
        tokens.append(padded.reshape(count, width))
        document.append(np.full(count, number))
        start.append(width * np.arange(count))
    return Windows(
        tokens=np.concatenate([np.empty((0, width), dtype=np.int64), *tokens]),
        document=np.concatenate([np.empty(0, dtype=np.int64), *document]),
        start=np.concatenate([np.empty(0, dtype=np.int64), *start]),
    )


def inputs_and_targets(tokens: Ints) -> tuple[Ints, Ints]:
    """Inputs and targets (n, L) of windows (n, L + 1): at each place the token after it; padding is input 0, target -1.

    >>> [part.tolist() for part in inputs_and_targets(np.array([[7, 8, 9], [5, 6, -1]]))]
    [[[7, 8], [5, 6]], [[8, 9], [6, -1]]]
    """
    return np.maximum(tokens[:, :-1], 0), tokens[:, 1:].copy()


def prefix_and_start(inputs: Ints, targets: Ints) -> tuple[tuple[int, ...], int]:
    """The tokens of one row (L,) up to the last that is asked for, and where the first of those is; none without any.

    >>> prefix_and_start(np.array([7, 8, 1, 2]), np.array([-1, 1, 2, -1]))
    ((7, 8, 1, 2), 2)
    """
    target_positions = np.flatnonzero(targets != PADDING)
    if not len(target_positions):
        return (), 0
    last = int(target_positions[-1])
    return (*inputs[: last + 1].tolist(), int(targets[last])), int(target_positions[0]) + 1


def join_windows(inputs: Ints, targets: Ints) -> Ints:
    """The windows (n, L + 1) behind inputs and targets, where every token is asked: the inverse of
    `inputs_and_targets`.

    >>> join_windows(np.array([[5, 6]]), np.array([[6, -1]])).tolist()
    [[5, 6, -1]]
    """
    return np.concatenate([inputs[:, :1], targets], axis=1)


def texts(inputs: Ints, targets: Ints) -> Ints:
    """The windows (n, L + 1) of n rows up to the last token that is asked for, and -1 after it; see `prefix_and_start`.

    >>> texts(np.array([[7, 8, 1, 2], [5, 6, 0, 0]]), np.array([[-1, 1, 2, -1], [-1, -1, -1, -1]])).tolist()
    [[7, 8, 1, 2, -1], [-1, -1, -1, -1, -1]]
    """
    asked_at = targets != PADDING
    # how many targets there are up to the last that is asked for
    count = np.where(asked_at.any(axis=1), targets.shape[1] - asked_at[:, ::-1].argmax(axis=1), 0)
    places = np.arange(targets.shape[1] + 1)
    shifted = np.concatenate([inputs, targets[:, -1:]], axis=1)
    rows = np.arange(len(shifted))
    shifted[rows, count] = np.where(count > 0, targets[rows, count - 1], PADDING)
    return np.where((places <= count[:, None]) & (count[:, None] > 0), shifted, PADDING)
