"""The rows that each client trains on: found for one client and run on request, never for all of them at once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.ragged import Ragged

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KEPT_ROWS = 1 << 22
"""Row numbers that are remembered at most, 32 MB: all of a small federation, the latest of a large one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientRows:
    """The rows of N clients in R runs; letters and arrays are those of `Federation` and `AuditSet`.

    A client trains on its base rows, then, copy by copy in audit order, on the rows that stand for the examples it
    holds: `trained_rows` where an example is in and the round within its window, otherwise `replacement`, -1 for none.
    Examples that are `relearnt` (m,) count as in, in every run.

    Guarantees:

    - asking costs what is asked for: nothing grows with N but an index of the copies by client, made once;
    - arrays are shared and read-only; at most `KEPT_ROWS` row numbers are remembered.
    """

    base: Ragged
    owner: NDArray[np.int32]
    copies: NDArray[np.int32]
    is_in: Bools
    start: NDArray[np.int32]
    stop: NDArray[np.int32]
    trained_rows: Ints
    replacement: Ints
    client_in: Bools | None = None
    relearnt: Bools | None = None
    _cache: _CachedRows = field(default_factory=lambda: _CachedRows(KEPT_ROWS))
    _rounds: dict[int, int] = field(default_factory=dict)
    _number_of_active: dict[bytes, int] = field(default_factory=dict)

    def rows(self, run: int, client: int, round_number: int) -> Ints:
        """The rows that a client trains on in a round of a run; none where the run leaves it out."""
        if self.client_in is not None and not self.client_in[run, client]:
            return self.base[client][:0]
        copies = self._copies_by_client[client]
        if not len(copies):
            return self.base[client]
        key = (run, client, self._window(round_number))
        rows = self._cache.get(key)
        if rows is None:
            stand = np.where(
                self._is_trained(run, copies, round_number), self.trained_rows[copies], self.replacement[run, copies]
            )
            rows = np.concatenate([self.base[client], stand[stand >= 0]])
            rows.flags.writeable = False
            self._cache.put(key, rows)
        return rows

    def rows_of(self, runs: Ints, clients: Ints, round_number: int) -> Ragged:
        """The rows of T pairs of a run and a client (T,), in their order: `rows` for all of them in a few steps."""
        base, copies = _choose_parts(self.base, clients), _choose_parts(self._copies_by_client, clients)
        place = np.repeat(np.arange(len(clients)), copies.sizes)
        pair_run = np.asarray(runs)[place]
        present = self._is_trained(pair_run, copies.rows, round_number)
        stand = np.where(present, self.trained_rows[copies.rows], self.replacement[pair_run, copies.rows])
        rows = np.concatenate([base.rows, stand])
        pair = np.concatenate([np.repeat(np.arange(len(clients)), base.sizes), place])
        exists = (rows >= 0) & self._exist(runs, clients)[pair]
        rows, pair = rows[exists], pair[exists]
        # Stable, so that base rows, which come first, stay in front of those that stand for examples.
        order = np.argsort(pair, kind="stable")
        return Ragged.split(rows[order], np.bincount(pair, minlength=len(clients)))

    def sizes_of(self, runs: Ints, clients: Ints, round_number: int) -> Ints:
        """(T,) how many rows these are."""
        copies = _choose_parts(self._copies_by_client, clients)
        place = np.repeat(np.arange(len(clients)), copies.sizes)
        pair_run = np.asarray(runs)[place]
        is_row = self._is_trained(pair_run, copies.rows, round_number) | (self.replacement[pair_run, copies.rows] >= 0)
        sizes: Ints = self.base.sizes[clients] + np.bincount(place[is_row], minlength=len(clients))
        return np.where(self._exist(runs, clients), sizes, 0)

    def _is_trained(self, run: Ints | int, copies: Ints, round_number: int) -> Bools:
        """Which of these copies are trained on: their example is in, and the round within its window."""
        subject = self._subject[copies]
        inside = (self.start[subject] <= round_number) & (round_number <= self.stop[subject])
        is_in = self.is_in[run, subject]
        if self.relearnt is not None:
            is_in = is_in | self.relearnt[subject]
        present: Bools = is_in & inside
        return present

    def _exist(self, runs: Ints, clients: Ints) -> Bools:
        if self.client_in is None:
            return np.ones(len(clients), dtype=bool)
        exists: Bools = self.client_in[runs, clients]
        return exists

    @cached_property
    def _subject(self) -> Ints:
        """(copies in all,) the example of each copy."""
        return np.repeat(np.arange(len(self.copies)), self.copies)

    @cached_property
    def _copies_by_client(self) -> Ragged:
        """For each client, the copies that it trains on, in audit order; copies without a client are left out."""
        copies = np.flatnonzero(self.owner >= 0)
        return Ragged.group_by_owner(copies, self.owner[copies], len(self.base))

    def _window(self, round_number: int) -> int:
        """A number that rounds with the same active examples share: few windows, many rounds."""
        window = self._rounds.get(round_number)
        if window is None:
            starts, stops = self._windows
            active = ((starts <= round_number) & (round_number <= stops)).tobytes()
            window = self._rounds[round_number] = self._number_of_active.setdefault(active, len(self._number_of_active))
        return window

    @cached_property
    def _windows(self) -> tuple[Ints, Ints]:
        """The first and the last round of each window that differs from the others."""
        pairs = np.unique(self.start.astype(np.int64) << 32 | self.stop)
        return pairs >> 32, pairs & (1 << 32) - 1


class _CachedRows:
    """Arrays by key, the oldest given up first, so that all together hold at most so many row numbers."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._arrays: OrderedDict[tuple[int, int, int], Ints] = OrderedDict()

    def get(self, key: tuple[int, int, int]) -> Ints | None:
        return self._arrays.get(key)

    def put(self, key: tuple[int, int, int], array: Ints) -> None:
        self._arrays[key] = array
        self._room -= len(array)
        while self._room < 0 and self._arrays:
            _, oldest = self._arrays.popitem(last=False)
            self._room += len(oldest)


def _choose_parts(parts: Ragged, which: Ints) -> Ragged:
    """Some parts, one after the other."""
    which = np.asarray(which)
    starts, ends = parts.starts[which], parts.starts[which + 1]
    sizes = ends - starts
    before = np.cumsum(sizes) - sizes
    places = np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
    return Ragged.split(parts.rows[places], sizes)
