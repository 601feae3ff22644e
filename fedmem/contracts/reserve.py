"""The reserve of real rows, set aside before partitioning, from which injections and replacement rows are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, IntArray
from fedmem.contracts.data import Examples
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError

SHUFFLED_ONCE = 1 << 12
"""From so many rows on a reserve is shuffled once, not for every draw: which rows come differs, their law does not."""


class Reserve:
    """Real rows that no client holds; a row is handed out once.

    Draws follow the labels of a client: each is a label drawn from `targets`, then a random free row of that label.
    Labels that have run out are drawn again from the others of `targets`; when none of these is left, any free row
    serves. `fork` gives an independent copy, so that each run draws its own replacement rows from what is left.
    A draw from a large reserve costs what is drawn, however large it is.

    With a partition by owner (`natural`), `owners` (n,) says which client owned each row; -1 marks rows that were set
    aside for all clients. A draw for `client` then takes rows of this client alone, and a draw without a client takes
    rows that are for all clients. Without `owners`, all rows are for all clients and `client` changes nothing.

    Errors: `ComponentError` if more rows are wanted than are left.

    >>> rows = Examples(inputs=np.zeros((4, 1), np.float32), targets=np.array([0, 0, 1, 1]), ids=np.arange(4))
    >>> reserve = Reserve(rows)
    >>> reserve.take_like(np.array([1, 1]), 2, np.random.default_rng(0)).targets.tolist(), len(reserve)
    ([1, 1], 2)
    >>> reserve = Reserve(rows, owners=np.array([0, 1, 0, 1]))
    >>> sorted(reserve.take_like(np.array([1]), 2, np.random.default_rng(0), client=1).ids.tolist())
    [1, 3]
    """

    def __init__(
        self,
        examples: Examples,
        free: NDArray[np.bool_] | None = None,
        owners: IntArray | None = None,
        sets: Sequence[tuple[int, IntArray]] = (),
    ) -> None:
        self._examples = examples
        self._free = np.ones(len(examples), dtype=bool) if free is None else free.copy()
        self._count = int(np.count_nonzero(self._free))
        self._width = 1 + int(examples.labels.max(initial=0))
        self._stacks: _Stacks | None = None
        self._owners = owners
        self._sets = list(sets)
        self._pools: Ragged | None = None

    def __len__(self) -> int:
        return self._count

    def fork(self) -> Reserve:
        """A copy that can be drawn from without touching this one."""
        return Reserve(self._examples, self._free, self._owners, self._sets)

    def remaining(self) -> Examples:
        """The rows that are not taken yet, in their original order."""
        return self._examples.take(np.flatnonzero(self._free))

    def remaining_owners(self) -> IntArray | None:
        """The client of each row that is not taken yet; None where all rows are for all clients."""
        return None if self._owners is None else self._owners[self._free]

    def positions_like(
        self, targets: IntArray, count: int, rng: np.random.Generator, client: int | None = None
    ) -> IntArray:
        """`count` free rows, without replacement and in random order, with labels drawn like `targets`."""
        left = len(self) if self._owners is None else len(self._candidates(client))
        if count > left:
            whose = "" if self._owners is None else " for all clients" if client is None else f" of client {client}"
            raise ComponentError("injections", f"{count} rows of the reserve{whose} are needed but {left} are left")
        width = max(self._width, 1 + int(targets.max(initial=0)))
        odds = np.bincount(targets, minlength=width).astype(np.float64)
        batches: list[IntArray] = []
        missing = count
        # One pass draws all labels at once; only labels found empty are drawn again, which is what drawing one row
        # after the other and rejecting empty labels would give.
        while missing:
            positions = self._pass(odds, missing, rng, client)
            self._take(positions)
            batches.append(positions)
            missing -= len(positions)
        return rng.permutation(np.concatenate(batches)) if batches else np.empty(0, dtype=np.int64)

    def _take(self, positions: IntArray) -> None:
        self._free[positions] = False
        self._count -= len(positions)

    def _candidates(self, client: int | None) -> IntArray:
        """The free rows that a draw for a client, or for none in particular, may take."""
        if self._owners is None:
            return np.flatnonzero(self._free)
        if self._pools is None:
            # -2 are the rows of sets, -1 those for everybody.
            count = 3 + int(self._owners.max(initial=-1))
            self._pools = Ragged.group_by_owner(np.arange(len(self._owners)), self._owners + 2, count)
        pool = 1 if client is None else client + 2
        rows = self._pools[pool] if pool < len(self._pools) else np.empty(0, dtype=np.int64)
        return np.asarray(rows[self._free[rows]])

    def _pass(self, odds: FloatArray, missing: int, rng: np.random.Generator, client: int | None) -> IntArray:
        """At most `missing` free rows with labels by these odds, which lose the labels that have run out."""
        if self._owners is None and len(self._examples) >= SHUFFLED_ONCE:
            return self._pop_by_label(odds, missing, rng)
        free = rng.permutation(self._candidates(client))
        labels = self._examples.labels[free]
        available = np.bincount(labels, minlength=len(odds))
        odds[available == 0] = 0
        if odds.sum() == 0:
            return free[:missing]
        counts = rng.multinomial(missing, odds / odds.sum())
        order = np.argsort(labels, kind="stable")
        place = np.arange(len(free)) - np.repeat(np.cumsum(available) - available, available)
        positions: IntArray = free[order[place < counts[labels[order]]]]
        return positions

    def _pop_by_label(self, odds: FloatArray, missing: int, rng: np.random.Generator) -> IntArray:
        """The same from stacks of each label in random order."""
        if self._stacks is None:
            self._stacks = _Stacks(self._examples.labels, np.flatnonzero(self._free), self._width, rng)
        available = np.zeros(len(odds), dtype=np.int64)
        available[: self._width] = self._stacks.sizes
        odds[available == 0] = 0
        if odds.sum() == 0:
            # Any free row: a random subset of them has so many of each label.
            counts = rng.multivariate_hypergeometric(available, missing)
        else:
            counts = np.minimum(rng.multinomial(missing, odds / odds.sum()), available)
        return self._stacks.pop(counts)

    def take_like(self, targets: IntArray, count: int, rng: np.random.Generator, client: int | None = None) -> Examples:
        """The rows themselves; see `positions_like`."""
        return self._examples.take(self.positions_like(targets, count, rng, client))

    def take_same(self, targets: IntArray, count: int, rng: np.random.Generator, client: int) -> Examples:
        """`count` rows of one label, which is drawn from `targets`; other labels only where that has run out.

        A client's own rows of one label are few, so that the reserve of an owner holds them as a set.
        """
        if self._owners is None:
            return self.take_like(rng.choice(targets, size=1), count, rng)
        for number, (owner, positions) in enumerate(self._sets):
            if owner == client and len(positions) == count:
                del self._sets[number]
                self._take(positions)
                return self._examples.take(positions)
        raise ComponentError("injections", f"no set of {count} rows of one label is left for client {client}")

    def take_for(self, targets: IntArray, each: int, rng: np.random.Generator, clients: Sequence[int]) -> Examples:
        """`each` rows for each of these clients, in order: its own rows first, where these are few, rows of others."""
        if self._owners is None:
            return self.take_like(targets, each * len(clients), rng)
        parts = [self._examples.take(np.empty(0, dtype=np.int64))]
        for client in clients:
            own = min(each, len(self._candidates(client)))
            parts.append(self.take_like(targets, own, rng, client))
            parts.append(self.take_like(targets, each - own, rng))
        return Examples.concatenate(parts)


class _Stacks:
    """Rows by label, those of each label in random order, from which any number can be taken."""

    def __init__(self, targets: IntArray, rows: IntArray, width: int, rng: np.random.Generator) -> None:
        mixed = rng.permutation(rows)
        self._rows = mixed[np.argsort(targets[mixed], kind="stable")]
        self.sizes = np.bincount(targets[rows], minlength=width)
        self._starts = np.cumsum(self.sizes) - self.sizes

    def pop(self, counts: IntArray) -> IntArray:
        """So many rows of each label, at most as many as there are."""
        labels = np.flatnonzero(counts)
        self.sizes[labels] -= counts[labels]
        ends = self._starts[labels] + self.sizes[labels]
        return np.concatenate(
            [self._rows[end : end + count] for end, count in zip(ends.tolist(), counts[labels].tolist(), strict=True)]
        )
