"""Values by the number of rounds since an example was last used, paired within examples.

An example is used in the rounds in which its owning client takes part and the example is in its window. A start is a
use after which no other use follows for d rounds. So the value d rounds after a start is that of a model since whose
last use d rounds have passed. The mean over the starts of an example comes before all others.

Clients that take part often have starts at small d alone, and are other clients than those at large d. So the values at
d are given with those at d = 0 of the same starts: a difference between the two compares no two populations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import BoolArray, FloatArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.series import Series


@dataclass(frozen=True, kw_only=True)
class SinceUse:
    """Values (R, m) that are means over the starts of each example, NaN where there is none.

    Attributes:
        since: d, the rounds since the start.
        now: The values d rounds after the starts.
        at_start: The values in the rounds of the same starts.
    """

    since: int
    now: FloatArray
    at_start: FloatArray


def uses(series: Series, audit: AuditSet) -> BoolArray:
    """(S, m) whether an example is used at each observed round; never for an example that several clients hold.

    The participations of other clients that hold it are not among those of its owner.
    """
    assert series.participated is not None
    used = series.participated & _in_window(series, audit)
    shared = np.zeros(len(audit), dtype=bool)
    shared[audit.subject[audit.owners != np.repeat(audit.owner, audit.copies)]] = True
    return used & ~shared


def uses_of_some_runs(series: Series, audit: AuditSet) -> BoolArray:
    """(S, m) whether an example is used in some run: its owner may have failed in others."""
    took_part = series.participated if series.took_part is None else series.took_part
    assert took_part is not None
    return np.asarray(took_part & _in_window(series, audit))


def _in_window(series: Series, audit: AuditSet) -> BoolArray:
    rounds = series.rounds[:, None]
    return np.asarray((audit.start <= rounds) & (rounds <= audit.stop))


def starts_of(used: BoolArray, since: int, ends: BoolArray | None = None) -> BoolArray:
    """(S − d, m) whether a round is a use that no other use follows for d rounds, all of them observed.

    Args:
        used: (S, m) the uses, at rounds that follow one another.
        since: d.
        ends: (S, m) the uses of some runs alone, which are no starts, but end the time since one. Without it, `used`.

    Examples:
        >>> used = np.array([[True], [False], [True], [False], [False]])
        >>> [starts_of(used, since)[:, 0].nonzero()[0].tolist() for since in range(4)]
        [[0, 2], [0, 2], [2], []]
    """
    count = len(used) - since
    starts, ends = used[:count].copy(), used if ends is None else used | ends
    for later in range(1, since + 1):
        starts &= ~ends[later : later + count]
    return starts


def pair_with_start(
    values: FloatArray, used: BoolArray, since: int, *, moves: bool = True, ends: BoolArray | None = None
) -> SinceUse:
    """The values (S, R, m) of models by the rounds since the last use.

    A start counts in a run where both of its values are known.

    Args:
        values: (S, R, m) at rounds that follow one another.
        used: (S, m) the uses.
        since: d, less than S.
        moves: Whether there is a model at every round. A client that is away keeps that of its last round.
        ends: (S, m) as in `starts_of`.
    """
    starts = starts_of(used, since, ends)
    at_start = values[: len(starts)]
    now = values[since:] if moves else at_start
    is_counted = starts[:, None] & ~np.isnan(now) & ~np.isnan(at_start)
    count = is_counted.sum(0)
    means = [
        np.where(count > 0, np.where(is_counted, part, 0.0).sum(0) / np.maximum(count, 1), np.nan)
        for part in (now, at_start)
    ]
    return SinceUse(since=since, now=means[0], at_start=means[1])
