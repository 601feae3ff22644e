"""Rows that clients hold after the partition: which an injection takes, and which stand in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import AuditSet, InjectionPlan
from fedmem.contracts.data import ClientData, Dataset, Examples
from fedmem.contracts.injection import Injection, has_coins, injection_declaration
from fedmem.contracts.ragged import Ragged
from fedmem.errors import ComponentError
from fedmem.federation.own_rows import owners_of_copies, splits_by_owner
from fedmem.federation.phases import draws_of
from fedmem.federation.set_aside import ClientSequence
from fedmem.seeding import stream
from fedmem.wording import client_with_name

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

_NAMED = 5
"""How many rows of each reason a message names."""


@dataclass(frozen=True, kw_only=True)
class OwnReplacements:
    """The replacement rows of the injection at position `injection`: client by client, training rows of that client."""

    injection: int
    rows: Ragged


class HeldRows(ClientSequence):
    """The rows that each client holds, fewer with each injection that takes some of them.

    A client keeps at least one base row. Under `exclusion: replace` each copy needs a replacement row, which is another
    row of the same client. These rows are drawn by injection, so that a later injection changes no earlier draw.
    """

    def __init__(
        self,
        scenario: Scenario,
        data: Dataset,
        parts: Ragged,
        names: tuple[str, ...],
        set_aside: Mapping[str, IntArray],
    ) -> None:
        """`set_aside` has ids of rows that nobody holds, by the reason."""
        self._scenario, self._data, self._parts, self._names = scenario, data, parts, names
        self._set_aside = dict(set_aside)
        self._is_free = np.ones(len(parts.rows), dtype=bool)
        self._columns = {**data.sensitive, **data.columns}
        self._away = _count_away(scenario, data, set_aside)

    def __len__(self) -> int:
        return len(self._parts)

    def _client(self, client: int) -> ClientData:
        rows = self._parts.rows[self._free_places(client)]
        return ClientData(
            client=client,
            examples=self._data.train.take(rows),
            name=self._names[client] if self._names else "",
            columns=_ColumnsOfRows(self._columns, rows),
            max_taken=self._max_taken(len(rows), self._scenario.exclusion == "replace"),
            elsewhere=self._elsewhere(client),
            set_aside=_ExamplesByReason(self._data, self._reasons),
            text_starts=self._data.text_starts,
        )

    def _elsewhere(self, client: int) -> Mapping[str, int]:
        """Where further training rows of the owners of a client's rows are."""
        if self._data.natural is None:
            return {}
        owners = np.unique(self._data.natural[self._parts[client]])
        counts = {reason: int(by_owner[owners].sum()) for reason, by_owner in self._away.items()}
        return {reason: count for reason, count in counts.items() if count}

    def require_rows(self, i: int, injection: Injection) -> None:
        """Errors: `ComponentError` for the rows that an injection names and that no client holds, with the reasons."""
        rows = injection_declaration(injection).rows
        if rows is None:
            return
        free = self._data.train.ids[self._parts.rows[self._is_free]]
        missing = np.setdiff1d(rows, free)
        if not len(missing):
            return
        reasons = []
        for reason, ids in self._reasons().items():
            named = np.intersect1d(missing, ids)
            missing = np.setdiff1d(missing, named)
            reasons += [f"{_rows_text(named)} {reason}"] if len(named) else []
        highest = max(int(part.ids.max(initial=-1)) for part in (self._data.train, self._data.test))
        reasons += [f"{_rows_text(missing)} not in the data, whose rows are 0 to {highest}"] if len(missing) else []
        raise ComponentError(
            f"injections[{i}].rows",
            f"no client holds all of these rows: {'; '.join(reasons)}. Leave them out, or change what keeps them from "
            "the clients (`population`, the test set of the data, other injections, `seed`)",
        )

    def take(self, i: int, addition: InjectionPlan) -> OwnReplacements | None:
        """Remove the rows of a plan from their clients, and draw the replacement rows of these clients."""
        if addition.taken is None:
            return None
        places = self._places(i, addition.taken)
        client_of_row = np.repeat(np.arange(len(self)), self._parts.sizes)
        taken = np.bincount(client_of_row[places], minlength=len(self))
        owners = owners_of_copies(addition)
        copies = np.bincount(owners[owners >= 0], minlength=len(self))
        scenario = self._scenario
        replaced = scenario.exclusion == "replace" and has_coins(scenario.injections[i], scenario.runs)
        free = np.bincount(client_of_row[self._is_free], minlength=len(self))
        too_many = np.flatnonzero((taken > 0) & (taken + copies * replaced > free - 1))
        if len(too_many):
            client = int(too_many[0])
            client_name = client_with_name(client, self._names[client] if self._names else "")
            raise ComponentError(
                f"injections[{i}]",
                f"takes {taken[client]} of the {free[client]} rows of {client_name}, at most "
                f"{self._max_taken(int(free[client]), replaced)} are possible: {limit_text(replaced)}",
            )
        self._is_free[places] = False
        self._set_aside[f"included at random by injections[{i}] already; put this injection before it"] = addition.taken
        rng = stream(self._scenario.seed, f"replacement rows of owners:{i}")
        counts = copies * replaced
        drawn = [
            np.sort(rng.choice(self._free_places(client), size=counts[client], replace=False))
            for client in np.flatnonzero(counts).tolist()
        ]
        chosen = np.concatenate([np.empty(0, dtype=np.int64), *drawn])
        self._is_free[chosen] = False
        rows = self._parts.rows[chosen]
        reason = f"among the replacement rows of injections[{i}]; put this injection before it"
        self._set_aside[reason] = self._data.train.ids[rows]
        return OwnReplacements(injection=i, rows=Ragged.split(rows, counts))

    def remaining(self) -> Ragged:
        """The training rows that are left to each client."""
        if self._is_free.all():
            return self._parts
        client_of_row = np.repeat(np.arange(len(self)), self._parts.sizes)
        sizes = np.bincount(client_of_row[self._is_free], minlength=len(self))
        return Ragged.split(self._parts.rows[self._is_free], sizes)

    def _free_places(self, client: int) -> IntArray:
        start, stop = self._parts.starts[client : client + 2].tolist()
        places: IntArray = start + np.flatnonzero(self._is_free[start:stop])
        return places

    def _max_taken(self, rows: int, replaced: bool) -> int:
        return max(0, (rows - 1) // 2 if replaced else rows - 1)

    def _places(self, i: int, ids: IntArray) -> IntArray:
        """Where these ids are among the rows of all clients."""
        held = self._data.train.ids[self._parts.rows]
        order = np.argsort(held)
        found: IntArray = order[np.searchsorted(held, ids, sorter=order).clip(max=len(held) - 1)]
        wrong = np.flatnonzero((held[found] != ids) | ~self._is_free[found])
        if len(wrong):
            raise ComponentError(f"injections[{i}]", f"takes row {ids[wrong[0]]}, which no client holds any more")
        return found

    def _reasons(self) -> Mapping[str, IntArray]:
        """Reason -> ids of rows that no client holds."""
        assigned = self._data.train.ids[self._parts.rows]
        return {
            "in the test set": self._data.test.ids,
            **self._set_aside,
            "left out by the partition": np.setdiff1d(self._data.train.ids, assigned),
        }


def _count_away(scenario: Scenario, data: Dataset, set_aside: Mapping[str, IntArray]) -> Mapping[str, IntArray]:
    """Reason -> (owners,) how many rows of each owner are set aside; empty without a partition by owner."""
    natural = data.natural
    if natural is None or not splits_by_owner(scenario.partition):
        return {}
    owners = int(natural.max(initial=0)) + 1
    return {
        reason: np.bincount(natural[np.isin(data.train.ids, ids)], minlength=owners)
        for reason, ids in set_aside.items()
    }


def notes_of(
    injections: Sequence[Injection], additions: Sequence[InjectionPlan], own: Sequence[OwnReplacements]
) -> tuple[str, ...]:
    """For people: how many rows of clients each injection audits, and what else it says."""
    replacements = {pool.injection: len(pool.rows.rows) for pool in own}
    notes: list[str] = []
    for i, (injection, addition) in enumerate(zip(injections, additions, strict=True)):
        if addition.taken is not None:
            owners = addition.owner if addition.owners is None else addition.owners
            others = f", and {replacements[i]} others of theirs are replacement rows" if replacements.get(i) else ""
            count, clients = len(addition.taken), len(np.unique(owners))
            notes.append(
                f"{injection.name}: {count} {'row' if count == 1 else 'rows'} that {clients} "
                f"{'client holds' if clients == 1 else 'clients hold'} {'is' if count == 1 else 'are'} audited{others}"
            )
        notes += [f"{injection.name}: {note}" for note in addition.notes]
    return tuple(notes)


def warnings_of(injections: Sequence[Injection], additions: Sequence[InjectionPlan]) -> tuple[str, ...]:
    """Warnings of each injection for a reader of the numbers."""
    return tuple(
        f"{injection.name}: {warning}"
        for injection, addition in zip(injections, additions, strict=True)
        for warning in addition.warnings
    )


def limit_text(replaced: bool) -> str:
    """Why no more rows can be taken of a client, and what to do."""
    if not replaced:
        return "a client keeps at least one row of its own; choose fewer"
    return (
        "each needs another row of the same client as its replacement row, and the client keeps at least one. Choose "
        "fewer, or write `exclusion: remove`, which needs no replacement rows"
    )


def draw_own(
    scenario: Scenario,
    audit: AuditSet,
    pools: Sequence[OwnReplacements],
    replacement: IntArray,
    start: int,
    draw_order: IntArray,
) -> None:
    """Write into `replacement` (R, copies in all) the own replacement rows of each run.

    They are rows of the store from `start` on, in the order of `pools`. In each run the rows of a client are shuffled,
    and a row stands in once. Rows are given out in the order `draw_order` (m,) of their examples.
    """
    subject, owners = audit.subject, audit.owners
    phase = 0 if scenario.after is None else scenario.after.phase
    for pool in pools:
        copies = np.flatnonzero(audit.injection[subject] == pool.injection)
        copies_of_client = Ragged.group_by_owner(copies, owners[copies], len(pool.rows))
        clients = np.flatnonzero(pool.rows.sizes).tolist()
        for run in range(audit.runs):
            coin_row = run if audit.coin_row is None else int(audit.coin_row[run])
            rng = stream(scenario.seed, f"own replacement rows:{pool.injection}", run=coin_row)
            for client in clients:
                mixed = start + pool.rows.starts[client] + rng.permutation(int(pool.rows.sizes[client]))
                own_copies = copies_of_client[client]
                for draw in draws_of(phase):
                    is_due = draw.is_due(draw_order, audit.is_in[run])
                    to_replace = own_copies[is_due[subject[own_copies]]]
                    replacement[run, to_replace] = mixed[: len(to_replace)]
                    mixed = mixed[len(to_replace) :]
        start += len(pool.rows.rows)


class _ColumnsOfRows(Mapping[str, NDArray[Any]]):
    """The columns of some rows, each copied when it is read."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], rows: IntArray) -> None:
        self._columns, self._rows = columns, rows

    def __getitem__(self, name: str) -> NDArray[Any]:
        return np.asarray(self._columns[name])[self._rows]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class _ExamplesByReason(Mapping[str, Examples]):
    """The rows with the ids of each reason, collected when they are read."""

    def __init__(self, data: Dataset, reasons: Callable[[], Mapping[str, IntArray]]) -> None:
        self._data, self._reasons = data, reasons

    def __getitem__(self, reason: str) -> Examples:
        ids = self._reasons()[reason]
        return Examples.concatenate(
            [part.take(np.flatnonzero(np.isin(part.ids, ids))) for part in (self._data.train, self._data.test)]
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._reasons())

    def __len__(self) -> int:
        return len(self._reasons())


def _rows_text(ids: IntArray) -> str:
    """`row 3 is`, `rows 3, 4 and 2 more are`."""
    if len(ids) == 1:
        return f"row {ids[0]} is"
    named = ", ".join(map(str, ids[:_NAMED].tolist()))
    return f"rows {named}" + (f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else "") + " are"
