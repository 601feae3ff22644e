"""Where members of a template stand in windows of text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.windows import PADDING, Ints


@dataclass(frozen=True, kw_only=True)
class Occurrences:
    """The members of a template in n windows.

    `row`, `start`, `stop` and `number` (k,) are the window, the first place, the place after the last, and the member
    of each occurrence. `longer` (n,) counts texts that begin as a member does and go on with one more option of the
    last place. Five digits for a template of four are an example. `unknown` (n,) counts texts with a token that is not
    in the vocabulary where the template has a place. Neither is an occurrence.
    """

    row: Ints
    start: Ints
    stop: Ints
    number: Ints
    longer: Ints
    unknown: Ints


def find_occurrences(
    space: Candidates, windows: Ints, unknown: int = PADDING, following: Ints | None = None
) -> Occurrences:
    """The occurrences in windows (n, L + 1), from left to right; the longest of several possible ones at a place.

    `unknown` is the token of what is not in the vocabulary. Occurrences in a window do not overlap. `following` (n, L +
    1) are the windows that go on with the text, `PADDING` where none does. An occurrence at the end of a window does
    not count where the text goes on with one more option. One that ends in the next window is left to `find_cut`.

    >>> pins = Candidates(prefix=(7,), positions=(((0,), (1,)), ((0,), (1,))))
    >>> found = find_occurrences(pins, np.array([[5, 7, 1, 0, 5, 7, 0, 0], [7, 1, 1, 1, 7, 0, 9, 5]]), unknown=9)
    >>> found.row.tolist(), found.start.tolist(), found.number.tolist(), found.longer.tolist(), found.unknown.tolist()
    ([0, 0], [1, 5], [2, 0], [0, 1], [0, 1])
    >>> find_occurrences(pins, np.array([[7, 1, 0]]), following=np.array([[1, 5, 5]])).longer.tolist()
    [1]
    """
    width = windows.shape[1]
    occurrences: list[tuple[int, int, int, int]] = []
    longer, unclear = np.zeros(len(windows), dtype=np.int64), np.zeros(len(windows), dtype=np.int64)
    reached: dict[int, int] = {}
    for row, start in _beginnings(space.prefix, windows):
        if start < reached.get(row, 0):
            continue
        text = tuple(windows[row].tolist()) + (() if following is None else tuple(following[row].tolist()))
        match = _match_at(space, text, start, PADDING)
        if match is None:
            unclear[row] += unknown != PADDING and _match_at(space, text, start, unknown) is not None
            continue
        stop, number = match
        reached[row] = stop
        if _goes_on(space, text, stop):
            longer[row] += 1
        elif stop <= width:
            occurrences.append((row, start, stop, number))
    columns = np.array(occurrences, dtype=np.int64).reshape(-1, 4).T
    return Occurrences(
        row=columns[0], start=columns[1], stop=columns[2], number=columns[3], longer=longer, unknown=unclear
    )


def find_cut(space: Candidates, windows: Ints, following: Ints) -> Occurrences:
    """The occurrences that begin in one of `windows` (n, L + 1) and end in the window after it (n, L + 1).

    `stop` is counted from the beginning of the first window, and `row` is the pair of windows.

    >>> pins = Candidates(prefix=(7,), positions=(((0,), (1,)), ((0,), (1,))))
    >>> cut = find_cut(pins, np.array([[5, 5, 7, 1]]), np.array([[0, 5, 5, 5]]))
    >>> cut.row.tolist(), cut.start.tolist(), cut.stop.tolist(), cut.number.tolist()
    ([0], [2], [5], [2])
    """
    width = windows.shape[1]
    joined = find_occurrences(space, np.concatenate([windows, following], axis=1))
    is_cut = (joined.start < width) & (joined.stop > width)
    return Occurrences(
        row=joined.row[is_cut],
        start=joined.start[is_cut],
        stop=joined.stop[is_cut],
        number=joined.number[is_cut],
        longer=joined.longer,
        unknown=joined.unknown,
    )


def _beginnings(prefix: Tokens, windows: Ints) -> Iterator[tuple[int, int]]:
    """Window and place of every occurrence of `prefix`, in order."""
    if len(prefix) > windows.shape[1]:
        return iter(())
    begins = (sliding_window_view(windows, len(prefix), axis=1) == np.array(prefix)).all(axis=2)
    return ((int(row), int(start)) for row, start in np.argwhere(begins))


def _match_at(space: Candidates, text: Tokens, start: int, unknown: int) -> tuple[int, int] | None:
    """The end and the number of the longest member from `start` on; a token `unknown` stands for any option."""
    reached = {start + len(space.prefix): 0}
    for options in space.positions:
        after: dict[int, int] = {}
        for place, number in reached.items():
            for option, part in enumerate(options):
                end = place + len(part)
                is_unknown = unknown != PADDING and len(options) > 1 and text[place : place + 1] == (unknown,)
                if text[place:end] == part or is_unknown:
                    end = place + 1 if is_unknown else end
                    next_number = number * len(options) + option
                    after[end] = min(next_number, after.get(end, next_number))
        reached = after
    return max(reached.items()) if reached else None


def _goes_on(space: Candidates, text: Tokens, stop: int) -> bool:
    """Whether one more option of the last place follows."""
    last = space.positions[-1] if space.positions else ()
    return len(last) > 1 and any(text[stop : stop + len(part)] == part for part in last)
