"""Which rows are set aside before injections plan: from the rows of all clients, or from those of each owner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import ClientData, Dataset, Examples, partition_declaration
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.reserve import Reserve
from fedmem.contracts.validation import parts_of
from fedmem.errors import ComponentError
from fedmem.federation.own_rows import Needs, Ownership, count_needs, draw_own_rows, splits_by_owner
from fedmem.federation.row_budget import RowBudget, draw, make_row_budget, population_of
from fedmem.guards.guarding import Guard
from fedmem.seeding import stream

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

PlanOne = Callable[[int, Sequence[ClientData], Reserve], InjectionPlan]
"""The plan of the injection at a position, for clients with these rows, from a reserve."""


class ClientSequence(Sequence[ClientData], ABC):
    """The rows of each client, made on access; slices are tuples, and negative positions count from the end."""

    @abstractmethod
    def _client(self, client: int) -> ClientData:
        """The rows of a client, from 0."""

    @overload
    def __getitem__(self, index: int) -> ClientData: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ClientData, ...]: ...

    def __getitem__(self, index: int | slice) -> ClientData | tuple[ClientData, ...]:
        clients = range(len(self))[index]
        return tuple(map(self._client, clients)) if isinstance(clients, range) else self._client(clients)


class BaseRows(ClientSequence):
    """The base rows of each client, copied from the data set on access; `reserved` (N,) more of each were set aside."""

    def __init__(
        self, train: Examples, base: Ragged, reserved: IntArray | None = None, names: tuple[str, ...] = ()
    ) -> None:
        self._train = train
        self._base = base
        self._reserved = reserved
        self._names = names

    def __len__(self) -> int:
        return len(self._base)

    def _client(self, client: int) -> ClientData:
        reserved = 0 if self._reserved is None else int(self._reserved[client])
        name = self._names[client] if self._names else ""
        return ClientData(client=client, examples=self._train.take(self._base[client]), name=name, reserved=reserved)


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """Base rows of each client, the reserves, the rows of each purpose, and the names of the clients.

    `unreserved` are all rows outside the population that are in no reserve, also those that the partition left out.
    `ownership` and `reserved` (N,), the rows of each client that were set aside, are None without a partition by owner.
    """

    base: Ragged
    unreserved: IntArray
    reserve: Reserve
    classes: Mapping[int, Reserve]
    counts: Mapping[str, int]
    names: tuple[str, ...] = ()
    ownership: Ownership | None = None
    reserved: IntArray | None = None


def set_aside(scenario: Scenario, data: Dataset, plan_one: PlanOne) -> SetAside:
    """Set aside what injections and replacement rows take, and partition the rest.

    Errors: `ComponentError` from the partition, or if a client has too few rows with a partition by owner.
    """
    if splits_by_owner(scenario.partition):
        return _from_owners(scenario, data, plan_one)
    return _from_all(scenario, data)


def row_counts(scenario: Scenario, data: Dataset, plan_one: PlanOne) -> Mapping[str, int]:
    """The number of rows of each purpose, whether they are enough or not."""
    if not splits_by_owner(scenario.partition):
        return make_row_budget(scenario, data).rows
    budget, _, needs = _needs_of_owners(scenario, data, plan_one)
    return budget.with_reserves(needs.audit, int(needs.replacements.sum()))


def _from_all(scenario: Scenario, data: Dataset) -> SetAside:
    """Set aside from the rows of all clients, then partition."""
    budget = make_row_budget(scenario, data)
    counts = budget.rows
    rows = _rows_outside_population(scenario, data)
    classes: dict[int, Reserve] = {}
    for label, count in budget.classes.items():
        class_rows = rows[data.train.labels[rows] == label]
        class_reserve = draw(class_rows, min(count, len(class_rows)), stream(scenario.seed, f"spare of class {label}"))
        classes[label] = Reserve(data.train.take(class_reserve))
        rows = np.setdiff1d(rows, class_rows if label in budget.reserved_classes else class_reserve, assume_unique=True)
    general = counts["audit"] - sum(budget.classes.values()) + counts["replacements"]
    reserve_rows = draw(rows, general, stream(scenario.seed, "spare"))
    rows = np.setdiff1d(rows, reserve_rows, assume_unique=True)
    return SetAside(
        base=_assign(scenario, data, rows),
        unreserved=rows,
        reserve=Reserve(data.train.take(reserve_rows)),
        classes=classes,
        counts=counts,
    )


def _from_owners(scenario: Scenario, data: Dataset, plan_one: PlanOne) -> SetAside:
    """Partition by owner, then set aside from the rows of each client."""
    budget, ownership, needs = _needs_of_owners(scenario, data, plan_one)
    own, rows = draw_own_rows(scenario, ownership, needs), _rows_outside_population(scenario, data)
    return SetAside(
        base=own.base,
        unreserved=np.union1d(own.base.rows, rows[ownership.owner[rows] < 0]),
        reserve=own.reserve,
        classes=own.classes,
        counts=budget.with_reserves(needs.audit, int(needs.replacements.sum())),
        names=ownership.names,
        ownership=ownership,
        reserved=ownership.parts.sizes - own.base.sizes,
    )


def _needs_of_owners(scenario: Scenario, data: Dataset, plan_one: PlanOne) -> tuple[RowBudget, Ownership, Needs]:
    """The owner of each row, and how many rows are needed."""
    budget = make_row_budget(scenario, data)
    assigned = _assign(scenario, data, _rows_outside_population(scenario, data))
    ownership = Ownership.of(data, assigned, budget.reserved_classes)
    whole = BaseRows(data.train, ownership.parts, names=ownership.names)
    return budget, ownership, count_needs(scenario, ownership, lambda i, reserve: plan_one(i, whole, reserve))


def _rows_outside_population(scenario: Scenario, data: Dataset) -> IntArray:
    return np.setdiff1d(np.arange(len(data.train)), population_of(scenario, data), assume_unique=True)


def _assign(scenario: Scenario, data: Dataset, rows: IntArray) -> Ragged:
    """The rows of each client, checked."""
    with Guard("partition", scenario.partition, "assign") as guard:
        assignment = scenario.partition.assign(data, rows, scenario.clients, stream(scenario.seed, "partition"))
        parts = assignment if isinstance(assignment, Ragged) else Ragged.of(parts_of(guard, assignment))
    assigned_rows = np.sort(parts.rows)
    expected_rows = np.intersect1d(assigned_rows, rows) if partition_declaration(scenario.partition).leave_out else rows
    if len(parts) != scenario.clients or not np.array_equal(assigned_rows, expected_rows):
        raise ComponentError(
            "partition",
            f"gave {len(parts)} clients {len(assigned_rows)} rows, {len(np.unique(assigned_rows))} of them different, "
            f"but {scenario.clients} clients must hold each of {len(rows)} rows once",
        )
    return parts
