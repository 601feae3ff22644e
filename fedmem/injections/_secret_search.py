"""Where the members of a template stand in the windows of a data set: whole, cut by a window border, or set aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fedmem.contracts.data import Examples
from fedmem.modalities.text.occurrences import find_cut, find_occurrences
from fedmem.modalities.text.secret_space import Candidates, Tokens
from fedmem.modalities.text.spellings import other_spellings
from fedmem.modalities.text.vocabulary import UNKNOWN, Vocabulary
from fedmem.modalities.text.windows import PADDING, Ints, join_windows

NO_STARTS: Ints = np.zeros(0, dtype=np.int64)
"""Where it is not known which windows begin a text."""


@dataclass(frozen=True, kw_only=True)
class SecretSearch:
    """Where secrets stand in the windows that clients hold, the rows of `examples`, and in those set aside.

    Attributes:
        windows: By secret the rows that hold it as a whole.
        pieces: By secret the rows that hold a part of its value, from a copy that the border of a window cuts.
        cut: By secret how many of its copies are cut.
        elsewhere: By reason how many windows that no client holds have a secret as a whole, those of `windows` if any.
        searched: How many rows there are.
        beginnings: How many of them hold the beginning of the template.
        longer: How many texts go on after the last place.
        unknown: How many texts have an unknown token in a place.
        spellings: How many texts have the template in another spelling, by the spelling of its fixed text.
    """

    windows: Mapping[int, Sequence[int]]
    pieces: Mapping[int, Sequence[int]]
    cut: Mapping[int, int]
    elsewhere: Mapping[str, int]
    searched: int
    beginnings: int
    longer: int
    unknown: int
    spellings: Mapping[str, int]

    @staticmethod
    def of(
        members: Candidates,
        rows: Examples,
        vocabulary: Vocabulary,
        set_aside: Mapping[str, Examples],
        text_starts: Ints = NO_STARTS,
    ) -> SecretSearch:
        """Look through the windows of all clients, and through those that no client holds.

        `text_starts` are the ids of the first windows of texts: no text goes on there.
        """
        unknown = vocabulary.tokens.index(UNKNOWN) if UNKNOWN in vocabulary.tokens else PADDING
        ids, texts = rows.ids, join_windows(rows.inputs, rows.targets)
        reasons: dict[str, slice] = {}
        for reason, examples in set_aside.items():
            rest = examples.take(np.flatnonzero(~np.isin(examples.ids, ids)))
            reasons[reason] = slice(len(ids), len(ids) + len(rest))
            ids, texts = (
                np.concatenate([ids, rest.ids]),
                np.concatenate([texts, join_windows(rest.inputs, rest.targets)]),
            )
        follower = _followers(ids, text_starts)
        following = np.where(follower[:, None] < 0, PADDING, texts[follower])
        held = len(rows)
        found = find_occurrences(members, texts[:held], unknown, following[:held])
        windows: dict[int, list[int]] = {}
        for number, row in sorted(set(zip(found.number.tolist(), found.row.tolist(), strict=True))):
            windows.setdefault(number, []).append(row)
        elsewhere: dict[str, int] = {}
        for reason, part in reasons.items():
            there = find_occurrences(members, texts[part], following=following[part])
            is_asked = np.isin(there.number, list(windows)) if windows else np.ones(len(there.row), dtype=bool)
            elsewhere[reason] = len(np.unique(there.row[is_asked]))
        pieces, cut = _pieces(members, texts, follower, held, list(windows))
        beginning = Candidates(prefix=members.prefix, positions=())
        return SecretSearch(
            windows=windows,
            pieces=pieces,
            cut=cut,
            elsewhere={reason: count for reason, count in elsewhere.items() if count},
            searched=held,
            beginnings=len(np.unique(find_occurrences(beginning, texts[:held]).row)),
            longer=int(found.longer.sum()),
            unknown=int(found.unknown.sum()),
            spellings=other_spellings(
                members, [vocabulary.decode(text[text != PADDING]) for text in texts[:held]], vocabulary
            ),
        )

    def rows_by_secret(self) -> dict[int, list[int]]:
        """By secret that stands in some row as a whole, all rows that hold it or a part of its value."""
        return {number: sorted({*rows, *self.pieces.get(number, ())}) for number, rows in self.windows.items()}

    def near_misses(self) -> list[str]:
        """A sentence for each reason."""
        # cut copies of other secrets are under a coin
        cut = sum(count for number, count in self.cut.items() if number not in self.windows)
        reasons = (
            (self.longer, ("goes", "go"), "on after the last place, such as a longer number"),
            (self.unknown, ("has", "have"), f"{UNKNOWN}, a token that is not in the vocabulary, in a place"),
            (cut, ("is", "are"), "cut by the end of a window"),
        )
        return [
            f"{count} {'text that begins' if count == 1 else 'texts that begin'} like the template "
            f"{verbs[count != 1]} {why}"
            for count, verbs, why in reasons
            if count
        ]

    def other_spellings(self) -> str:
        """A sentence about texts that have the template in another spelling; empty without any.

        The values are hidden. At most three spellings are shown, the most frequent first.
        """
        count = sum(self.spellings.values())
        if not count:
            return ""
        order = sorted(self.spellings, key=lambda spelling: (-self.spellings[spelling], spelling))
        shown = ", ".join(repr(spelling) for spelling in order[:3]) + ", …" * (len(order) > 3)
        return (
            f"{count} {'text of a client has' if count == 1 else 'texts of clients have'} the template in another "
            f"case, or with other spaces or signs ({shown}). These are not audited, and every run may train on them: "
            "write one injection for each spelling"
        )


def other_windows(members: Candidates, number: int, tokens: Ints, taken: Collection[int]) -> list[int]:
    """The windows (n, L + 1), except those taken, that hold the value of a secret without the text before it.

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


def _followers(ids: Ints, text_starts: Ints) -> Ints:
    """(n,) the position of the window in which a text goes on after each, -1 where that is nowhere.

    The windows of one text have ids in a row, and the first window of each text goes on with no other.

    >>> _followers(np.array([4, 3, 6, 5, 9]), np.array([0, 5])).tolist()
    [-1, 0, -1, 2, -1]
    """
    order = np.argsort(ids, kind="stable")
    is_followed = (np.diff(ids[order]) == 1) & ~np.isin(ids[order][1:], text_starts)
    follower = np.full(len(ids), -1, dtype=np.int64)
    follower[order[:-1][is_followed]] = order[1:][is_followed]
    return follower


def _pieces(
    members: Candidates, tokens: Ints, follower: Ints, held: int, numbers: Sequence[int]
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """By secret the held rows with a part of its value, and its number of cut copies.

    A text may go on nowhere, because its end is left out. Then the beginning of a known secret at the end of a window
    is a piece.
    """
    first = np.flatnonzero(follower >= 0)
    second = follower[first]
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
    last = np.flatnonzero(follower[:held] < 0)
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
