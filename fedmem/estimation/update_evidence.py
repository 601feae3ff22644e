"""The stored features of updates as arrays, and those of sums of clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.estimator import SetEvidence

_SIGNAL = "update_feature"
_FACTS = ("label", "rows")


@dataclass(frozen=True, kw_only=True)
class Updates:
    """The updates of S rounds, R runs and N clients, NaN where there is none; N is 1 for those of the aggregate.

    Attributes:
        blocks: Features that an attack reads, one array (S, R, N, d) for each sort, linear in the update.
        facts: (S, R, N, C + 1) rows by class, and all rows.
        weight: (S, R, N) the weight of a client in a sum.
    """

    blocks: tuple[FloatArray, ...]
    facts: FloatArray
    weight: FloatArray

    @property
    def is_there(self) -> BoolArray:
        """(S, R, N) which updates are known, finite and not zero."""
        whole = np.concatenate(self.blocks, axis=3)
        return np.asarray(np.isfinite(whole).all(axis=3) & (np.abs(whole) > 0).any(axis=3))

    def take(self, runs: IntArray, clients: IntArray) -> Updates:
        """Those of some runs and clients, in this order."""
        place = np.ix_(np.arange(len(self.facts)), runs, clients)
        blocks = tuple(block[place] for block in self.blocks)
        return Updates(blocks=blocks, facts=self.facts[place], weight=self.weight[place])

    @staticmethod
    def of(test: SetEvidence, runs: int, rounds: Iterable[int], clients: int) -> Updates | None:
        """Those of a set whose signals have them, in ascending order of round; None where there are none.

        Args:
            test: The set that the signal is read on.
            runs: R.
            rounds: The rounds to be read.
            clients: N; 0 for the aggregate.
        """
        columns = stored_columns(test, f"{_SIGNAL}.", runs, rounds, clients)
        if "rows" not in columns:
            return None
        blocks = tuple(
            np.stack([columns[name] for name in names], axis=3)
            for sort in ("projection", "first")
            if (names := _names_of_sort(columns, sort))
        )
        facts = np.stack([*(columns[name] for name in _names_of_sort(columns, "label")), columns["rows"]], axis=3)
        return Updates(blocks=blocks, facts=facts, weight=columns["weight"])


def stored_columns(
    test: SetEvidence, start: str, runs: int, rounds: Iterable[int], clients: int
) -> dict[str, FloatArray]:
    """(S, R, N) the values of signals whose names have this start, on their first row, by the rest of the name."""
    wanted = sorted(set(rounds))
    columns: dict[str, FloatArray] = {}
    for block in test.signals:
        if block.name.startswith(start) and block.round in wanted:
            name = block.name.removeprefix(start)
            if name not in columns:
                columns[name] = np.full((len(wanted), runs, max(clients, 1)), np.nan)
            place = block.client if clients else np.zeros_like(block.client)
            columns[name][wanted.index(block.round), block.run, place] = block.values[:, 0]
    return columns


def count_clients(test: SetEvidence) -> int:
    """One more than the largest client whose updates are stored; 0 for those of the aggregate."""
    return 1 + max((int(block.client.max(initial=-1)) for block in test.signals), default=-1)


def stored_rounds(test: SetEvidence, round_number: int | None) -> list[int]:
    """The rounds with signals after round 0: one round, or all of them."""
    numbers = {block.round for block in test.signals if block.round > 0}
    return sorted(numbers if round_number is None else numbers & {round_number})


def halves_of(cases: int, count: int, rng: np.random.Generator) -> BoolArray:
    """(count, cases) random halves."""
    return rng.permuted(np.tile(np.arange(cases) < cases // 2, (count, 1)), axis=1)


def _names_of_sort(columns: Iterable[str], sort: str) -> list[str]:
    """The names `sort.0`, `sort.1`, … in the order of their numbers."""
    names = [name for name in columns if name.startswith(f"{sort}.")]
    return sorted(names, key=lambda name: int(name.rpartition(".")[2]))


def companions(is_there: BoolArray, target: int, size: int, rng: np.random.Generator) -> BoolArray:
    """(S, R, N) sums of a target and size − 1 other clients of its round, drawn at random for each round and run.

    All False where the target or so many others are not there. Sums of other sizes from the same state of the
    generator contain each other.

    >>> companions(np.ones((1, 1, 4), dtype=bool), 2, 3, np.random.default_rng(0)).sum()
    np.int64(3)
    """
    key = np.where(is_there, rng.random(is_there.shape), np.inf)
    key[:, :, target] = np.where(is_there[:, :, target], -1.0, np.inf)
    rank = np.argsort(np.argsort(key, axis=2), axis=2)
    is_whole = is_there[:, :, target] & (is_there.sum(axis=2) >= size)
    return np.asarray((rank < size) & is_whole[:, :, None])


def sum_clients(updates: Updates, members: BoolArray) -> tuple[FloatArray, FloatArray]:
    """(R, d) features and (R, C + 1) facts of a sum of clients in each run, means over the rounds that have it.

    The sum is that of updates by their weights. Each sort of feature is divided by its length in each round, so that
    neither a learning rate nor the number of clients counts. NaN where no round has the sum.

    Args:
        updates: The updates.
        members: (S, R, N) which clients are in the sum.
    """
    is_any: BoolArray = np.asarray(members.any(axis=2))
    weight = np.where(members, updates.weight, 0.0)
    parts = []
    for block in updates.blocks:
        total = np.einsum("srn,srnd->srd", weight, np.where(members[..., None], block, 0.0))
        length = np.sqrt(np.square(total).sum(axis=2, keepdims=True))
        parts.append(np.divide(total, length, out=np.zeros_like(total), where=length > 0))
    facts = np.where(members[..., None], updates.facts, 0.0).sum(axis=2)
    return _mean_over_rounds(np.concatenate(parts, axis=2), is_any), _mean_over_rounds(facts, is_any)


def standardise(columns: FloatArray) -> FloatArray:
    """(n, d) columns in units of their standard deviations over rows without NaN; constant columns become 0."""
    usable: BoolArray = np.asarray(np.isfinite(columns).all(axis=1))
    rows = columns[usable]
    if not len(rows):
        return columns
    spread = rows.std(axis=0)
    is_constant = spread <= 1e-12 * np.abs(rows).max(axis=0)
    scaled = (columns - rows.mean(axis=0)) / np.where(is_constant, 1.0, spread)
    return np.asarray(np.where(is_constant & usable[:, None], 0.0, scaled))


def first_of_coin_rows(coin_rows: IntArray) -> IntArray:
    """The first run of each coin row: of twins, the others are left out.

    >>> first_of_coin_rows(np.array([0, 1, 0, 1])).tolist()
    [0, 1]
    """
    return np.sort(np.unique(coin_rows, return_index=True)[1])


def sizes_up_to(sizes: Sequence[int], is_there: BoolArray) -> list[int]:
    """1 and those of these sizes that some round and run has, ascending."""
    largest = int(is_there.sum(axis=2).max(initial=0))
    return sorted({1, *(size for size in sizes if size <= largest)})


def _mean_over_rounds(values: FloatArray, is_any: BoolArray) -> FloatArray:
    """(R, d) the mean of (S, R, d) over the rounds that count; NaN where none does."""
    count = is_any.sum(axis=0)[:, None]
    total = np.where(is_any[..., None], values, 0.0).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
