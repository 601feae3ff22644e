"""Coin groups: examples that are in or out together, which count as one draw.

The coins of different groups are independent, and those of one group are equal. So p re-deal the coins of whole groups,
and intervals take groups as clusters in place of examples. A value is then the effect of the whole group on its
examples, not that of each example on itself.

The number of groups is an effective one, (Σ n)² / Σ n² with n examples in each. Every example counts alike in a mean,
so that one large group may decide it alone. Groups of the same size count in full.

With at least `FEWEST` groups, an interval is about other groups like these. With fewer, groups are no sample. The
interval is then about these groups, and runs alone are its clusters:

    V = Σ over runs of (sum of contributions)².

With a single group this is the variance of the difference of two means, over runs with the group and over runs without
it. The spreads of the two sides may differ. So t has the degrees of freedom of the smaller side, R/2 − 1 where coins
are balanced. With these the interval keeps its level for any two spreads (Scheffé, 1970).

Without coin groups, all functions give back what they are given.

References: Scheffé (1970), Practical Solutions of the Behrens-Fisher Problem. Kish (1965), Survey Sampling, on the
effective number.
"""

from __future__ import annotations

import math

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.estimator import Influence
from fedmem.estimation.twins import over_coin_rows, side_shares
from fedmem.estimation.two_way import FEWEST, widening


def effective_groups(audit: AuditSet, rows: IntArray | BoolArray) -> int:
    """The effective number of coin groups of these examples, rounded down: all of them where sizes are equal."""
    sizes = np.bincount(audit.coin_groups[rows])
    return int(sizes.sum() ** 2 // max(int((sizes**2).sum()), 1))


def over_coin_groups(contributions: Influence, audit: AuditSet, rows: IntArray | BoolArray) -> Influence:
    """The same with contributions of the coin groups of the examples `rows` in place of those of these examples.

    The contributions of a group stand at its first example that has any, and are 0 at the others.
    """
    if not audit.shares_coins(rows):
        return contributions
    if effective_groups(audit, rows) < FEWEST:
        return _over_runs(contributions, audit)
    is_counted = (contributions.examples != 0) | (contributions.cells != 0).any(0)
    groups = audit.coin_groups
    examples, cells = np.zeros_like(contributions.examples), np.zeros_like(contributions.cells)
    sizes = []
    for group in np.unique(groups[is_counted]).tolist():
        members = np.flatnonzero(is_counted & (groups == group))
        examples[members[0]] = contributions.examples[members].sum()
        cells[:, members[0]] = contributions.cells[:, members].sum(1)
        sizes.append(len(members))
    # deviations from the mean of n examples were widened for n of them
    factor = _widening(len(sizes)) / _widening(sum(sizes))
    return Influence(examples=examples * factor, cells=cells)


def over_independent_draws(contributions: Influence, audit: AuditSet, rows: IntArray | BoolArray) -> Influence:
    """The same with contributions of what was drawn independently: coin rows, and coin groups of examples `rows`."""
    return over_coin_groups(over_coin_rows(contributions, audit), audit, rows)


def _over_runs(contributions: Influence, audit: AuditSet) -> Influence:
    """The same with runs as the only clusters.

    Deviations from the means of the two sides are widened for variances of one group, n/(n − 1) with n runs on a side.
    """
    n = max(audit.num_coin_rows // 2, 2)
    of_sides = float(widening(np.array(n), audit.num_coin_rows))
    runs = contributions.cells.sum(1) * math.sqrt(n / (n - 1)) / of_sides
    if audit.coin_law.law == "rate":
        sizes = np.maximum(np.rint(side_shares(audit) * audit.num_coin_rows).astype(np.int64), 2)
        runs = (contributions.cells * np.sqrt(sizes / (sizes - 1)) / widening(sizes, audit.num_coin_rows)).sum(1)
    elif audit.coin_law.varies:
        runs = contributions.cells.sum(1)  # they were not widened for sides
    return Influence(
        examples=np.zeros_like(contributions.examples), cells=np.zeros_like(contributions.cells), runs=runs
    )


def _widening(n: int) -> float:
    return math.sqrt(n / (n - 1)) if n > 1 else 1.0


def num_clusters(audit: AuditSet, rows: IntArray | BoolArray, answered: BoolArray) -> int:
    """The number of clusters behind a mean over the examples `rows`, from which an interval has its degrees of freedom.

    It is the smaller of the numbers of coin groups and of coin rows with an answer, `answered` (R,). With few groups it
    is the number of runs on one side.
    """
    runs, groups = len(np.unique(audit.coin_rows[answered])), effective_groups(audit, rows)
    if groups >= FEWEST or not audit.shares_coins(rows):
        return min(runs, groups)
    share = 0.5 if audit.coin_law.law != "rate" else float(side_shares(audit)[:, rows].min())
    return int(runs * share + 1e-9)
