"""Where the members of a template stand in the windows of a data set: whole, cut by a window border, or set aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fedmem.contracts.data import Examples
from fedmem.modalities.text.occurrences import find_cut, find_occurrences
from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING, Ints, join_windows


@dataclass(frozen=True, kw_only=True)
class SecretSearch:
    """Where secrets stand in the windows that clients hold, the rows of `examples`, and in those set aside.

    Attributes:
        windows: by secret the rows that hold it as a whole.
        pieces: by secret the rows that hold a part of its value, from a copy that the border of a window cuts.
        cut: by secret how many of its copies are cut.
        elsewhere: by reason how many windows that no client holds have a secret as a whole, those of `windows` if any.
        searched: how many rows there are.
        beginnings: how many of them hold the beginning of the template.
        longer: how many texts go on after the last place.
        unknown: how many texts have an unknown token in a place.
    """

    windows: Mapping[int, Sequence[int]]
    pieces: Mapping[int, Sequence[int]]
    cut: Mapping[int, int]
    elsewhere: Mapping[str, int]
    searched: int
    beginnings: int
    longer: int
    unknown: int

    @staticmethod
    def of(
        members: Candidates, rows: Examples, vocabulary: Vocabulary, set_aside: Mapping[str, Examples]
    ) -> SecretSearch:
        """Look through the windows of all clients, and through those that no client holds."""
        tokens = join_windows(rows.inputs, rows.targets)
        unknown = vocabulary.tokens.index(UNKNOWN) if UNKNOWN in vocabulary.tokens else PADDING
        found = find_occurrences(members, tokens, unknown)
        windows: dict[int, list[int]] = {}
        for number, row in sorted(set(zip(found.number.tolist(), found.row.tolist(), strict=True))):
            windows.setdefault(number, []).append(row)
        elsewhere: dict[str, int] = {}
        ids, texts = rows.ids, tokens
        for reason, examples in set_aside.items():
            rest = examples.take(np.flatnonzero(~np.isin(examples.ids, ids)))
            windows_of_rest = join_windows(rest.inputs, rest.targets)
            there = find_occurrences(members, windows_of_rest)
            is_asked = np.isin(there.number, list(windows)) if windows else np.ones(len(there.row), dtype=bool)
            elsewhere[reason] = len(np.unique(there.row[is_asked]))
            ids, texts = np.concatenate([ids, rest.ids]), np.concatenate([texts, windows_of_rest])
        pieces, cut = _pieces(members, texts, ids, len(rows), list(windows))
        beginning = Candidates(prefix=members.prefix, positions=())
        return SecretSearch(
            windows=windows,
            pieces=pieces,
            cut=cut,
            elsewhere={reason: count for reason, count in elsewhere.items() if count},
            searched=len(rows),
            beginnings=len(np.unique(find_occurrences(beginning, tokens).row)),
            longer=int(found.longer.sum()),
            unknown=int(found.unknown.sum()),
        )

    def rows_by_secret(self) -> dict[int, list[int]]:
        """By secret that stands in some row as a whole, all rows that hold it or a part of its value."""
        return {number: sorted({*rows, *self.pieces.get(number, ())}) for number, rows in self.windows.items()}

    def near_misses(self) -> list[str]:
        """A sentence for each reason."""
        # cut copies of other secrets are under a coin
        cut = sum(count for number, count in self.cut.items() if number not in self.windows)
        reasons = (
            (self.longer, "go on after the last place, such as a longer number"),
            (self.unknown, f"have {UNKNOWN}, a token that is not in the vocabulary, in a place"),
            (cut, "are cut by the end of a window"),
        )
        return [
            f"{count} {'text' if count == 1 else 'texts'} that begin like the template {why}"
            for count, why in reasons
            if count
        ]


def other_windows(members: Candidates, number: int, tokens: Ints, taken: Collection[int]) -> list[int]:
    """The windows (n, L + 1), but for those taken, that hold the value of a secret without the text before it.

    A value that goes on before or after, such as a longer number, does not count.

    >>> pins = Candidates(prefix=(7,), positions=(((0,), (1,)), ((0,), (1,))))
    >>> other_windows(pins, 2, np.array([[5, 1, 0, 5], [5, 1, 0, 1], [7, 1, 0, 5]]), taken=[2])
    [0]
    """
    places = np.flatnonzero(members.secret(number))
    value = members.member_tokens(number)[places[0] : places[-1] + 1]
    if len(value) > tokens.shape[1]:
        return []
    options = [{token for part in group for token in part} for group in members.positions if len(group) > 1]
    starts = np.argwhere((sliding_window_view(tokens, len(value), axis=1) == np.array(value)).all(axis=2))
    rows = set()
    for row, start in starts.tolist():
        before = tokens[row, start - 1] if start else PADDING
        after = tokens[row, start + len(value)] if start + len(value) < tokens.shape[1] else PADDING
        if before not in options[0] and after not in options[-1]:
            rows.add(row)
    return sorted(rows - set(taken))


def _pieces(
    members: Candidates, tokens: Ints, ids: Ints, held: int, numbers: Sequence[int]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """By secret the held rows with a part of its value, and its number of cut copies.

    The windows of one text have ids in a row, so that a copy goes on in the window with the next id. Where that is
    nowhere, because the end of a text is left out, the beginning of a known secret at the end of a window is a piece.
    """
    order = np.argsort(ids, kind="stable")
    is_followed = np.diff(ids[order]) == 1
    first, second = order[:-1][is_followed], order[1:][is_followed]
    width = tokens.shape[1]
    pieces: dict[int, set[int]] = {}
    cut: dict[int, int] = {}
    copies = find_cut(members, tokens[first], tokens[second])
    for pair, start, number in zip(copies.row.tolist(), copies.start.tolist(), copies.number.tolist(), strict=True):
        secret = members.secret(number)
        parts = (first[pair], secret[: width - start]), (second[pair], secret[width - start :])
        rows = {int(row) for row, asked in parts if any(asked) and row < held}
        if rows:
            pieces.setdefault(number, set()).update(rows)
            cut[number] = cut.get(number, 0) + 1
    last = np.setdiff1d(np.arange(held), first)
    for number in numbers:
        for row in _ending_in(members.member_tokens(number), members.secret(number), tokens[last]):
            pieces.setdefault(number, set()).add(int(last[row]))
            cut[number] = cut.get(number, 0) + 1
    return {number: sorted(rows) for number, rows in pieces.items()}, cut


def _ending_in(member: Tokens, secret: Sequence[bool], tokens: Ints) -> list[int]:
    """The windows that end with the beginning of a member, at least one token of its value included."""
    rows: set[int] = set()
    for count in range(secret.index(True) + 1, min(len(member), tokens.shape[1] + 1)):
        rows.update(np.flatnonzero((tokens[:, -count:] == np.array(member[:count])).all(axis=1)).tolist())
    return sorted(rows)
