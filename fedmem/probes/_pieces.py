"""Rows that many models answer, cut into pieces, so that memory is bounded and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator

LOGITS = 1 << 22
"""Logits computed at once."""


def pieces(models: int, rows: int, classes: int) -> Iterator[tuple[slice, slice]]:
    """Models and rows of each piece; together the pieces are every model and row once.

    The last digits of an answer depend on the other rows of its piece. So rows are cut at places that depend neither on
    the number of models nor on which they are. An answer then does not change with the models that are shown together.

    >>> [(len(range(3)[models]), len(range(5)[rows])) for models, rows in pieces(3, 5, 10)]
    [(3, 5)]
    """
    long = max(1, LOGITS // classes)
    for start in range(0, rows, long):
        part = slice(start, min(start + long, rows))
        many = max(1, LOGITS // (classes * (part.stop - start)))
        for first in range(0, models, many):
            yield slice(first, min(first + many, models)), part
