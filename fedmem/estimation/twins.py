"""Twins: runs with the same coins and rows, which differ in training noise alone.

A coin row is one draw of all coins. Coin rows are independent, and twins are not. So p re-deal the coins of whole coin
rows, intervals take coin rows as clusters, and halves of runs never divide twins. An attacker who has a twin of the
attacked run as a shadow run would know its coins. So the runs are divided into sets without twins, and each is attacked
alone.

Without twins, all functions give back what they are given.
"""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Influence
from fedmem.estimation.statistics import mean


def average_twins(values: FloatArray, audit: AuditSet) -> FloatArray:
    """(G, …) the mean over the runs of each coin row of values (R, …); NaN values do not count."""
    if audit.coin_row is None:
        return values
    rows = audit.coin_rows
    return np.stack([mean(values[rows == row], axis=0) for row in range(audit.num_coin_rows)])


def coins_of_rows(audit: AuditSet) -> BoolArray:
    """(G, m) the coins of each coin row."""
    return audit.is_in if audit.coin_row is None else audit.is_in[_first_runs(audit)]


def _first_runs(audit: AuditSet) -> IntArray:
    """(G,) the first run of each coin row."""
    return np.asarray(np.unique(audit.coin_rows, return_index=True)[1], dtype=np.int64)


def sets_without_twins(audit: AuditSet) -> list[IntArray]:
    """The runs, divided into sets of runs with different coins: the first of all twins, the second, and so on.

    >>> from types import SimpleNamespace
    >>> [runs.tolist() for runs in sets_without_twins(SimpleNamespace(coin_row=[0, 1, 0, 1], coin_rows=[0, 1, 0, 1]))]
    [[0, 1], [2, 3]]
    """
    if audit.coin_row is None:
        return [np.arange(audit.runs)]
    counts: dict[int, int] = {}
    place = []
    for row in np.asarray(audit.coin_rows).tolist():
        place.append(counts.get(row, 0))
        counts[row] = place[-1] + 1
    return [np.flatnonzero(np.array(place) == number) for number in range(max(place) + 1)]


def over_coin_rows(contributions: Influence, audit: AuditSet) -> Influence:
    """The same with contributions of coin rows (G, m) in place of those of runs.

    Deviations from the mean of n runs of a side were widened for R runs. There are only G independent ones. Where runs
    have inclusion rates, they were not.
    """
    if audit.coin_row is None:
        return contributions
    runs, groups = audit.runs, audit.num_coin_rows
    cells = np.zeros((groups, contributions.cells.shape[1]))
    np.add.at(cells, audit.coin_rows, contributions.cells)
    if not audit.coin_law.varies:
        share = side_shares(audit) if audit.coin_law.law == "rate" else np.array(0.5)
        cells = cells * _widening(share * groups, groups) / _widening(share * runs, runs)
    return Influence(examples=contributions.examples, cells=cells)


def side_shares(audit: AuditSet) -> FloatArray:
    """(G, m) the share of the coin rows that are on the same side as each, in or out: one half where balanced."""
    coins = coins_of_rows(audit)
    ins = coins.mean(0)
    return np.asarray(np.where(coins, ins, 1 - ins), dtype=np.float64)


def _widening(sizes: FloatArray, runs: int) -> FloatArray:
    """The factor of `two_way.influence` for sides of these sizes among so many runs."""
    n = np.maximum(sizes, 2.0)
    return np.asarray(n / (n - 1) * math.sqrt((runs - 1) / runs))
