"""The federation of a phase: windows of examples, forgotten ones, and replacement rows that only later phases need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import BoolArray, IntArray, Params
from fedmem.contracts.audit_set import FOREVER, AuditSet
from fedmem.contracts.families import kind_of
from fedmem.contracts.federation import Federation, PhaseBefore
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.unlearner import unlearner_declaration
from fedmem.errors import ComponentError
from fedmem.scenario.removed import REMOVED

if TYPE_CHECKING:
    from pathlib import Path

    from fedmem.scenario.scenario import Scenario

NEVER = int(np.iinfo(np.int64).max)
"""The position in the order of drawing of a replacement row that nobody needs."""

_FIRST = "fill-ins"
"""The stream of the first draw, under the name that it has always had."""

_OF_REMOVED = 1
"""The same of one that stands for an example that is removed: after those of phase 0, before those of phase 1."""


@dataclass(frozen=True, kw_only=True)
class PhaseWindows:
    """When m examples are trained on in a phase, and when their replacement rows are first needed.

    Attributes:
        start: (m,) the first round of the phase in which an in example is trained on; 0 from the beginning.
        stop: (m,) the last one; below 1 where it is not trained on in this phase, FOREVER to the end.
        order: (m,) when the replacement row of an in example is drawn, see `draws_of`; `NEVER` where it needs none.
    """

    start: IntArray
    stop: IntArray
    order: IntArray


def phase_windows(scenario: Scenario, start: IntArray, stop: IntArray, is_forgotten: Forgotten) -> PhaseWindows:
    """The windows of examples in the phase of a scenario, from those that count rounds of all phases together.

    Args:
        scenario: The scenario of the phase.
        start: (m,) first rounds, counted from the first training on.
        stop: (m,) last rounds, counted in the same way.
        is_forgotten: Which examples (m,) have one of these kinds.
    """
    order = np.full(len(start), NEVER)
    before = 0
    for number, phase in enumerate(scenario.phases):
        if number:
            assert phase.after is not None
            # an example that is forgotten has had its last round
            stop = np.where(is_forgotten(phase.after.forget.kinds), np.minimum(stop, before), stop)
            # and one that is learnt again is trained on in every round
            relearnt = is_forgotten(phase.after.relearn.kinds)
            start, stop = np.where(relearnt, 0, start), np.where(relearnt, FOREVER, stop)
        is_windowed = (start > before + 1) | (stop < before + phase.rounds)
        order = np.where(is_windowed & (order == NEVER), 2 * number, order)
        before += phase.rounds
    passed = before - scenario.rounds
    return PhaseWindows(
        start=np.maximum(start - passed, 0) if passed else start,
        stop=np.where(stop == FOREVER, FOREVER, stop - passed),
        order=order,
    )


Forgotten = Callable[[tuple[str, ...]], BoolArray]
"""Kinds -> (m,) which examples are of one of them."""


def with_windows(scenario: Scenario, audit: AuditSet) -> tuple[AuditSet, IntArray]:
    """The audit set with its windows in the phase of a scenario, and the order of replacement rows (m,)."""
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
        return audit, windows.order
    order = np.where(removed & (windows.order > 0), _OF_REMOVED, windows.order)
    kinds = () if scenario.after is None else scenario.after.relearn.kinds
    relearnt = _relearnt(scenario, audit) & ~removed if kinds else None
    return replace(audit, kind=kind, start=start, stop=stop, relearnt=relearnt), order


def _relearnt(scenario: Scenario, audit: AuditSet) -> BoolArray:
    """(m,) the examples that are learnt again: of such a kind, and at a client that takes part in the phase.

    Errors: `ComponentError` for a kind of which no such client has an example.
    """
    assert scenario.after is not None
    has_owner = ~np.isin(audit.owner, absent_clients(scenario))
    for position, kind in enumerate(scenario.after.relearn.kinds):
        if not (has_owner & (audit.kind == kind)).any():
            raise ComponentError(
                f"after.relearn.kinds[{position}]",
                f"all clients with examples of {kind} are forgotten, so that nobody learns them again; leave {kind} "
                "out, or forget fewer clients",
            )
    return has_owner & np.isin(audit.kind, scenario.after.relearn.kinds)


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


def removed_exclusion(scenario: Scenario) -> str:
    """Content of the places of removed examples: as `removed.exclusion` says, or as for examples that are out."""
    return (scenario.removed and scenario.removed.exclusion) or scenario.exclusion


def require_masked(scenario: Scenario, audit: AuditSet, unmasked: BoolArray, certain: BoolArray) -> None:
    """Errors: `ComponentError` where a removed example has copies that are trained on in every run.

    Also where one that is in in every run, `certain` (m,), should be replaced: there is no replacement row for it.
    """
    removed = removed_rows(scenario, len(audit))
    kept = np.unique(audit.subject[unmasked & removed[audit.subject]])
    if len(kept):
        raise ComponentError(
            "removed.examples",
            f"audit example {kept[0]} has copies that are trained on in every run, so that it cannot be removed; leave "
            "it out, or write unmasked: 0 in its injection",
        )
    is_replaced = scenario.removed is not None and removed_exclusion(scenario) == "replace"
    without_row = np.flatnonzero(removed & certain & is_replaced)
    if len(without_row):
        raise ComponentError(
            "removed.exclusion",
            f"audit example {without_row[0]} is in in every run, so that there is no replacement row for its place; "
            "write remove, or leave it out",
        )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One of the draws of replacement rows, which follow each other.

    Attributes:
        position: Its position in the order of drawing.
        stream: The name of its stream.
    """

    position: int
    stream: str

    def is_due(self, order: IntArray, is_in: BoolArray) -> BoolArray:
        """(m,) which examples get their row in this draw, in a run with these coins (m,).

        An out example gets it in the first draw. An in example gets it when it first needs one, by `order` (m,).

        >>> first, _, of_phase = draws_of(1)
        >>> order, is_in = np.array([0, 2, 2]), np.array([True, True, False])
        >>> first.is_due(order, is_in).tolist(), of_phase.is_due(order, is_in).tolist()
        ([True, False, True], [False, True, False])
        """
        due: BoolArray = np.where(is_in, order, 0) == self.position
        return due


def draws_of(phase: int) -> tuple[Draw, ...]:
    """The draws of replacement rows up to a phase, in their order.

    Rows that only later phases need, or that stand for removed examples, come later, so that all others stay as they
    are.
    """
    later = (Draw(position=2 * k, stream=f"replacement rows of phase {k}") for k in range(1, phase + 1))
    removed = Draw(position=_OF_REMOVED, stream="replacement rows of removed examples")
    return Draw(position=0, stream=_FIRST), removed, *later


def absent_clients(scenario: Scenario) -> tuple[int, ...]:
    """The clients that take no part in the phase of a scenario, ascending."""
    return tuple(sorted({client for phase in scenario.phases if phase.after for client in phase.after.forget.clients}))


def start_from(federation: Federation, models: tuple[Params, ...], folder: Path | None = None) -> Federation:
    """The federation whose runs start from these models, one for each run; without any, from initial weights.

    `folder` is that of the phase before, where it has ended.
    """
    before = None if folder is None else PhaseBefore(initials=federation.initials, folder=folder)
    return replace(federation, initials=models, before=before)


def forgotten_rows(scenario: Scenario, federation: Federation, run: int) -> dict[int, IntArray]:
    """The rows of the store that clients of a run trained on before the phase of a scenario, and are to forget in it.

    By client, ascending; clients without any are left out. These are the in examples of the forgotten kinds, and all
    rows of the forgotten clients that exist in the run. What an earlier phase forgot is not forgotten again, and
    clients that left before take no part.
    """
    if scenario.after is None or scenario.previous is None:
        return {}
    earlier = [phase.after.forget for phase in scenario.previous.phases if phase.after is not None]
    audit, forget = federation.audit, scenario.after.forget
    kinds = set(forget.kinds).difference(*(each.kinds for each in earlier))
    is_trained = np.isin(audit.kind, sorted(kinds)) & audit.is_in[run] & (audit.start == 0)
    copies = np.flatnonzero(is_trained[audit.subject] & (audit.owners >= 0))
    rows = Ragged.group_by_owner(federation.trained_rows[copies], audit.owners[copies], federation.num_clients)
    leaving = set(forget.clients).difference(*(each.clients for each in earlier))
    forgotten: dict[int, IntArray] = {}
    gone = {client for each in earlier for client in each.clients}
    for client in sorted({*np.flatnonzero(rows.sizes).tolist(), *leaving} - gone):
        if audit.client_in is not None and not audit.client_in[run, client]:
            continue
        # round 0 of a phase is the last round of the phase before
        held = federation.rows(run, client, 0) if client in leaving else rows[client][:0]
        of_client = np.unique(np.concatenate([held, rows[client]]))
        if len(of_client):
            forgotten[client] = of_client
    return forgotten


def require_whole(scenario: Scenario, audit: AuditSet) -> None:
    """Errors: `ComponentError` where an example has a window, and the unlearner replays rounds as if it had none."""
    if scenario.unlearner is None or not unlearner_declaration(scenario.unlearner).without_windows:
        return
    is_forgotten = np.isin(audit.kind, () if scenario.after is None else scenario.after.forget.kinds)
    has_window = (audit.start > 0) | (~is_forgotten & (audit.stop < FOREVER))
    if has_window.any():
        raise ComponentError(
            "unlearner",
            f"{kind_of(scenario.unlearner)} replays rounds without windows, but audit example "
            f"{np.flatnonzero(has_window)[0]} ({audit.kind[has_window][0]}) has a window; leave start and stop out",
        )


def rewind(federation: Federation) -> Federation:
    """The federation in which nobody ever trains on what has been forgotten, and on everything else in every round.

    Replacement rows stand in the places of forgotten examples, as in the phase.
    """
    audit = federation.audit
    is_gone = audit.stop < 1
    start = np.where(is_gone, FOREVER, 0).astype(np.int32)
    stop = np.where(is_gone, 0, FOREVER).astype(np.int32)
    unpooled = None if federation.unpooled is None else rewind(federation.unpooled)
    return replace(federation, audit=replace(audit, start=start, stop=stop), unpooled=unpooled)
