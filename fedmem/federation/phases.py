"""The federation of a phase: windows of examples, forgotten ones, and replacement rows that only later phases need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray, Params
from fedmem.contracts.audit_set import FOREVER, AuditSet
from fedmem.contracts.federation import Federation
from fedmem.errors import ComponentError
from fedmem.scenario.removed import REMOVED

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

NEVER = int(np.iinfo(np.int64).max)
"""The phase of a replacement row that no phase needs."""


@dataclass(frozen=True, kw_only=True)
class PhaseWindows:
    """When m examples are trained on in a phase, and when their replacement rows are first needed.

    Attributes:
        start: (m,) the first round of the phase in which an in example is trained on; 0 from the beginning.
        stop: (m,) the last one; below 1 where it is not trained on in this phase, FOREVER to the end.
        needed_from: (m,) the first phase in which an in example needs a replacement row; `NEVER` where none does.
    """

    start: IntArray
    stop: IntArray
    needed_from: IntArray


def phase_windows(scenario: Scenario, start: IntArray, stop: IntArray, is_forgotten: Forgotten) -> PhaseWindows:
    """The windows of examples in the phase of a scenario, from those that count rounds of all phases together.

    Args:
        scenario: The scenario of the phase.
        start: (m,) first rounds, counted from the first training on.
        stop: (m,) last rounds, counted in the same way.
        is_forgotten: Which examples (m,) have one of these kinds.
    """
    needed_from = np.full(len(start), NEVER)
    before = 0
    for number, phase in enumerate(scenario.phases):
        if number:
            assert phase.after is not None
            # an example that is forgotten has had its last round
            stop = np.where(is_forgotten(phase.after.forget.kinds), np.minimum(stop, before), stop)
        is_windowed = (start > before + 1) | (stop < before + phase.rounds)
        needed_from = np.where(is_windowed & (needed_from == NEVER), number, needed_from)
        before += phase.rounds
    passed = before - scenario.rounds
    return PhaseWindows(
        start=np.maximum(start - passed, 0) if passed else start,
        stop=np.where(stop == FOREVER, FOREVER, stop - passed),
        needed_from=needed_from,
    )


Forgotten = Callable[[tuple[str, ...]], BoolArray]
"""Kinds -> (m,) which examples are of one of them."""


def with_windows(scenario: Scenario, audit: AuditSet) -> tuple[AuditSet, IntArray]:
    """The audit set with its windows in the phase of a scenario, and the phases that need replacement rows (m,)."""
    windows = phase_windows(
        scenario,
        audit.start.astype(np.int64),
        audit.stop.astype(np.int64),
        lambda kinds: np.isin(audit.kind, kinds),
    )
    start, stop, kind = windows.start.astype(np.int32), windows.stop.astype(np.int32), audit.kind
    if (removed := removed_rows(scenario, len(audit))).any():
        start, stop = np.where(removed, FOREVER, start).astype(np.int32), np.where(removed, 0, stop).astype(np.int32)
        kind = np.where(removed, np.char.add(kind, REMOVED), kind)
    elif scenario.after is None:
        return audit, windows.needed_from
    return replace(audit, kind=kind, start=start, stop=stop), windows.needed_from


def removed_rows(scenario: Scenario, examples: int) -> BoolArray:
    """(m,) which of so many audit examples no run trains on.

    Errors: `ComponentError` for an example that does not exist.
    """
    removed = np.zeros(examples, dtype=bool)
    for position, example in enumerate(() if scenario.removed is None else scenario.removed.examples):
        if example >= examples:
            raise ComponentError(
                f"removed.examples[{position}]",
                f"audit example {example} does not exist; use 0 to {examples - 1}, or leave it out",
            )
        removed[example] = True
    return removed


def needed_in(phase: int, needed_from: IntArray, is_in: BoolArray) -> BoolArray:
    """(m,) whether the replacement row of an example is first needed in a phase of a run with these coins (m,).

    An out example needs it in phase 0, an in example from the phase on in which it is not trained on in some round.

    >>> needed_in(0, np.array([0, 1, 1]), np.array([True, True, False])).tolist()
    [True, False, True]
    >>> needed_in(1, np.array([0, 1, 1]), np.array([True, True, False])).tolist()
    [False, True, False]
    """
    first: BoolArray = np.where(is_in, needed_from, 0) == phase
    return first


def absent_clients(scenario: Scenario) -> tuple[int, ...]:
    """The clients that take no part in the phase of a scenario, ascending."""
    return tuple(sorted({client for phase in scenario.phases if phase.after for client in phase.after.forget.clients}))


def start_from(federation: Federation, models: tuple[Params, ...]) -> Federation:
    """The federation whose runs start from these models, one for each run; without any, from initial weights."""
    return replace(federation, initials=models)
