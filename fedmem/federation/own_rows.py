"""Partitions by owner: what is set aside for the audit of a client comes from the client's own rows.

The partition deals out all rows but the population. Each injection then plans once in a trial, which counts the rows
that it draws for each client. So many rows of each client are set aside, at random; the others are its base rows. Audit
examples, replacement rows and base rows of one client and label are therefore exchangeable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray
from fedmem.contracts.audit_set import InjectionPlan
from fedmem.contracts.data import Dataset, Examples, Partition, partition_declaration
from fedmem.contracts.families import nested_components
from fedmem.contracts.injection import injection_declaration
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.reserve import Reserve
from fedmem.errors import ComponentError
from fedmem.seeding import stream
from fedmem.wording import client_with_name

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario

EVERYBODY = -1
"""Stands for a client where rows are for all clients."""


def splits_by_owner(partition: Partition) -> bool:
    """Whether each client holds the rows of one owner, by this partition or by one nested in it.

    >>> from fedmem.partitions.feature_skew import FeatureSkew
    >>> from fedmem.partitions.natural import Natural
    >>> splits_by_owner(FeatureSkew(base=Natural())), splits_by_owner(FeatureSkew())
    (True, False)
    """
    # Only dataclasses have nested components, but a partition may be any object.
    parts = [partition, *(part for _, part in nested_components(partition))]
    return any(partition_declaration(part).by_owner for part in parts)


def masked_copies(addition: InjectionPlan) -> BoolArray:
    """(copies in all,) whether a coin decides about a copy; the last `unmasked` of each example are always trained on.

    >>> rows = Examples(inputs=np.zeros((1, 1), np.float32), targets=np.zeros(1, np.int64), ids=np.arange(1))
    >>> owner, copies = np.zeros(1, np.int32), np.array([3], np.int32)
    >>> masked_copies(InjectionPlan(examples=rows, owner=owner, copies=copies, unmasked=2)).tolist()
    [True, False, False]
    """
    first = np.repeat(np.cumsum(addition.copies) - addition.copies, addition.copies)
    masked: BoolArray = np.arange(len(first)) - first < np.repeat(addition.copies - addition.unmasked, addition.copies)
    return masked


def owners_of_copies(addition: InjectionPlan) -> NDArray[np.int32]:
    """(copies in all,) the client that trains on each copy."""
    return np.repeat(addition.owner, addition.copies) if addition.owners is None else addition.owners


class _Trial(Reserve):
    """Counts what is drawn for each client, and hands out rows of that client again and again.

    `drawn` (N + 1,) counts rows by client, last those that are for everybody; `sets` are the clients and sizes of sets
    of one label.
    """

    def __init__(self, examples: Examples, free: BoolArray, owners: IntArray, num_clients: int) -> None:
        super().__init__(examples, free, owners)
        self._all = np.flatnonzero(free)
        self.drawn = np.zeros(num_clients + 1, dtype=np.int64)
        self.sets: list[tuple[int, int]] = []

    def positions_like(
        self, targets: IntArray, count: int, rng: np.random.Generator, client: int | None = None
    ) -> IntArray:
        """Any rows of the client, with repetition."""
        self.drawn[EVERYBODY if client is None else client] += count
        return self._any(count, rng, client)

    def take_same(self, targets: IntArray, count: int, rng: np.random.Generator, client: int) -> Examples:
        """Any rows of the client, with repetition."""
        self.sets.append((client, count))
        return self._examples.take(self._any(count, rng, client))

    def take_for(self, targets: IntArray, each: int, rng: np.random.Generator, clients: Sequence[int]) -> Examples:
        """Any rows of each client, with repetition; beyond what it has, rows for everybody are counted."""
        for client in clients:
            own = min(each, len(self._candidates(client)) - int(self.drawn[client]))
            self.drawn[client] += own
            self.drawn[EVERYBODY] += each - own
        return self._examples.take(self._any(each * len(clients), rng, None))

    def _any(self, count: int, rng: np.random.Generator, client: int | None) -> IntArray:
        rows = self._all if client is None else self._candidates(client)
        return np.asarray(rng.choice(rows if len(rows) else self._all, size=count))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The number of rows that are set aside, by client.

    `general` (N + 1,) and `classes`, by reserved class (N + 1,), are for audit examples; the last entry is from the
    rows of all clients. `sets` are clients and sizes of sets of one label. `replacements` (N,) are replacement rows.
    """

    general: IntArray
    classes: Mapping[int, IntArray]
    sets: Sequence[tuple[int, int]]
    replacements: IntArray

    @property
    def audit(self) -> int:
        """All rows for audit examples."""
        in_classes = sum(int(counts.sum()) for counts in self.classes.values())
        return int(self.general.sum()) + in_classes + sum(count for _, count in self.sets)

    def own(self, exclusive: frozenset[int]) -> IntArray:
        """(N,) rows for audit examples of each client from its own rows, without those of exclusive classes."""
        own = self.general[:-1].copy()
        for label, counts in self.classes.items():
            if label not in exclusive:
                own += counts[:-1]
        for client, count in self.sets:
            own[client] += count
        return own


@dataclass(frozen=True, kw_only=True)
class Ownership:
    """The owner of each row before anything is set aside.

    `owner` (n,) is the client of each training row, -1 for rows of nobody. `parts` are the rows of each client without
    those of exclusive classes.
    """

    data: Dataset
    owner: IntArray
    parts: Ragged
    exclusive: frozenset[int]

    @staticmethod
    def of(data: Dataset, parts: Ragged, exclusive: frozenset[int]) -> Ownership:
        """The ownership that a partition of all rows makes; a client must keep a row."""
        owner = np.full(len(data.train), EVERYBODY, dtype=np.int64)
        owner[parts.rows] = np.repeat(np.arange(len(parts)), parts.sizes)
        rows = np.flatnonzero((owner >= 0) & ~np.isin(data.train.labels, list(exclusive)))
        ownership = Ownership(
            data=data,
            owner=owner,
            parts=Ragged.group_by_owner(rows, owner[rows], len(parts)),
            exclusive=exclusive,
        )
        empty = np.flatnonzero(ownership.parts.sizes == 0)
        if len(empty):
            raise ComponentError(
                "injections",
                f"{ownership.name(int(empty[0]))} has rows of reserved classes only ({sorted(exclusive)}), which no "
                "client may train on; choose another class",
            )
        return ownership

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the clients, in order: those of the owners, where each client is one; empty otherwise."""
        names, natural = self.data.client_names, self.data.natural
        if not names or natural is None:
            return ()
        owners = natural[self.parts.rows]
        first = owners[self.parts.starts[:-1]]
        if len(np.unique(first)) < len(first) or not np.array_equal(np.repeat(first, self.parts.sizes), owners):
            return ()
        return tuple(names[owner] for owner in first.tolist())

    def name(self, client: int) -> str:
        """The client in a message: its number, and its name where the data have one."""
        return client_with_name(client, self.names[client] if self.names else "")

    def of_class(self, label: int) -> BoolArray:
        """(n,) whether a row is of this class and somebody's."""
        belongs: BoolArray = (self.data.train.labels == label) & (self.owner >= 0)
        return belongs

    def foreign_rows(self, scenario: Scenario, additions: Sequence[InjectionPlan]) -> Mapping[str, int]:
        """The real rows that another client owned, by injection.

        Errors: `ComponentError` where an injection takes such rows and does not declare it.
        """
        counts: dict[str, int] = {}
        for i, (injection, addition) in enumerate(zip(scenario.injections, additions, strict=True)):
            count = self._count_foreign(addition)
            if count and not injection_declaration(injection).foreign_rows:
                raise ComponentError(
                    f"injections[{i}]",
                    f"puts {count} rows of other owners on clients, while each client of this partition holds the rows "
                    "of one owner. Draw them with `reserve.take_like(..., client=...)`, or declare "
                    "`foreign_rows = True`",
                )
            counts |= {injection.name: count} if count else {}
        return counts

    def _count_foreign(self, addition: InjectionPlan) -> int:
        client, ids = [addition.owner], [addition.examples.ids]
        if addition.extra is not None and addition.copy_index is not None:
            copies = addition.copy_index >= 0
            ids.append(addition.extra.ids[addition.copy_index[copies]])
            client.append(owners_of_copies(addition)[copies])
        pairs = np.unique(np.stack([np.concatenate(ids), np.concatenate(client)]), axis=1)
        real_ids, clients = pairs[:, (pairs[0] >= 0) & (pairs[1] >= 0)]
        order = np.argsort(self.data.train.ids)
        positions = order[np.searchsorted(self.data.train.ids, real_ids, sorter=order)]
        return int(np.count_nonzero(self.owner[positions] != clients))


PlanOne = Callable[[int, Reserve], InjectionPlan]
"""The plan of the injection at a position, which draws from a reserve."""


def count_needs(scenario: Scenario, ownership: Ownership, plan_one: PlanOne) -> Needs:
    """Count the rows that the injections draw, in a trial of each; see `Injection` for what makes the trial exact."""
    train, count = ownership.data.train, len(ownership.parts)
    free = np.zeros(len(train), dtype=bool)
    free[ownership.parts.rows] = True
    general = _Trial(train, free, ownership.owner, count)
    classes: dict[int, _Trial] = {}
    replacements = np.zeros(count, dtype=np.int64)
    for i, injection in enumerate(scenario.injections):
        declared = injection_declaration(injection)
        if declared.takes_held:
            continue  # it takes base rows, and its replacement rows are base rows too
        label = declared.reserved_class
        if label is not None and label not in classes:
            classes[label] = _Trial(train, ownership.of_class(label), ownership.owner, count)
        addition = plan_one(i, general if label is None else classes[label])
        if scenario.exclusion == "replace" and addition.replacements is None:
            owners = owners_of_copies(addition)[masked_copies(addition)]
            replacements += np.bincount(owners[owners >= 0], minlength=count)
    return Needs(
        general=general.drawn,
        classes={label: trial.drawn for label, trial in classes.items()},
        sets=general.sets,
        replacements=replacements,
    )


@dataclass(frozen=True, kw_only=True)
class OwnRows:
    """The rows of each client: base rows, and the reserves of the injections and of replacement rows."""

    base: Ragged
    reserve: Reserve
    classes: Mapping[int, Reserve] = field(default_factory=dict)


def draw_own_rows(scenario: Scenario, ownership: Ownership, needs: Needs) -> OwnRows:
    """Draw the rows of each client that are set aside.

    Errors: `ComponentError` that names the client with the fewest rows for what it needs, or the rows that are missing
    for everybody.
    """
    _require_rows(scenario, ownership, needs)
    draws = _Draws(scenario, ownership, needs)
    classes = {label: draws.of_class(label, counts) for label, counts in needs.classes.items()}
    sets = [(client, draws.same_label(client, count)) for client, count in needs.sets]
    owners = np.full(len(ownership.owner), EVERYBODY, dtype=np.int64)
    general = draws.own(needs.general[:-1] + needs.replacements)
    everybody = draws.everybody(int(needs.general[-1]))
    in_sets = np.concatenate([np.empty(0, dtype=np.int64), *(rows for _, rows in sets)])
    owners[general] = ownership.owner[general]
    # Rows in sets are taken as sets: no other draw may find them among the rows of their client.
    owners[in_sets] = EVERYBODY - 1
    reserved = np.sort(np.concatenate([general, everybody, in_sets]))
    place = np.full(len(owners), -1)
    place[reserved] = np.arange(len(reserved))
    rows = np.flatnonzero(draws.free)
    return OwnRows(
        base=Ragged.group_by_owner(rows, ownership.owner[rows], len(ownership.parts)),
        reserve=Reserve(
            ownership.data.train.take(reserved),
            owners=owners[reserved],
            sets=[(client, place[positions]) for client, positions in sets],
        ),
        classes=classes,
    )


def _require_rows(scenario: Scenario, ownership: Ownership, needs: Needs) -> None:
    """Errors: `ComponentError` where a client would keep no base row."""
    audit, sizes = needs.own(ownership.exclusive), ownership.parts.sizes
    missing = audit + needs.replacements + 1 - sizes
    short = np.flatnonzero(missing > 0)
    if not len(short):
        return
    client = int(missing.argmax())
    others = f"; {len(short) - 1} more of {len(sizes)} clients have too few" if len(short) > 1 else ""
    remedies = ["lower per_client or copies of the injections", "let `clients` of the injections leave it out"]
    remedies += ["lower population"] if scenario.population else []
    if needs.replacements[client] and audit[client] < sizes[client]:
        remedies.append("write `exclusion: remove`, which needs no replacement rows")
    raise ComponentError(
        "injections",
        f"{ownership.name(client)} has {sizes[client]} rows of its own outside test and population, but "
        f"{audit[client] + needs.replacements[client] + 1} are needed: {audit[client]} for audit examples, "
        f"{needs.replacements[client]} replacement rows and one to train on{others}; {', or '.join(remedies)}",
    )


class _Draws:
    """Rows drawn one purpose after the other; `free` (n,) are rows of clients that no purpose has taken."""

    def __init__(self, scenario: Scenario, ownership: Ownership, needs: Needs) -> None:
        self._seed = scenario.seed
        self._ownership = ownership
        self._owner = ownership.owner
        self.free = np.zeros(len(ownership.owner), dtype=bool)
        self.free[ownership.parts.rows] = True
        own = needs.own(ownership.exclusive) + needs.replacements
        # What a client can give to others and keep a base row.
        self._slack = ownership.parts.sizes - own - 1
        self._sets = stream(self._seed, "own rows of one label")

    def of_class(self, label: int, counts: IntArray) -> Reserve:
        """The rows of a reserved class: those of their owners, and those for everybody."""
        rng = stream(self._seed, f"own rows of class {label}")
        exclusive = label in self._ownership.exclusive
        candidates = self._ownership.of_class(label)
        if not exclusive:
            candidates &= self.free
        own = self._choose(np.flatnonzero(candidates), counts[:-1], rng)
        candidates[own] = False
        quota = np.full(len(counts) - 1, len(self._owner)) if exclusive else self._slack
        others = self._choose(np.flatnonzero(candidates), quota, rng, total=int(counts[-1]))
        if not exclusive:
            self._slack = self._slack - np.bincount(self._owner[others], minlength=len(self._slack))
        owners = np.concatenate([self._owner[own], np.full(len(others), EVERYBODY)])
        rows = np.concatenate([own, others])
        self.free[rows] = False
        return Reserve(self._ownership.data.train.take(rows), owners=owners)

    def same_label(self, client: int, count: int) -> IntArray:
        """Rows of one label, by the labels of the client that has so many; other labels where it has none."""
        part = self._ownership.parts[client]
        labels = self._ownership.data.train.labels
        rows = self._sets.permutation(part[self.free[part]])
        odds = np.bincount(labels[part]).astype(np.float64)
        enough = np.bincount(labels[rows], minlength=len(odds)) >= count
        odds = np.where(enough, odds, 0) if enough.any() else odds
        label = self._sets.choice(len(odds), p=odds / odds.sum())
        chosen: IntArray = rows[np.argsort(labels[rows] != label, kind="stable")][:count]
        self.free[chosen] = False
        return chosen

    def own(self, counts: IntArray) -> IntArray:
        """So many rows of each client."""
        rows = self._choose(np.flatnonzero(self.free), counts, stream(self._seed, "own rows"))
        self.free[rows] = False
        return rows

    def everybody(self, count: int) -> IntArray:
        """Rows of any clients that have more than they need."""
        rng = stream(self._seed, "own rows for everybody")
        rows = self._choose(np.flatnonzero(self.free), self._slack, rng, total=count)
        self.free[rows] = False
        return rows

    def _choose(self, rows: IntArray, quota: IntArray, rng: np.random.Generator, total: int | None = None) -> IntArray:
        """Random rows: at most `quota` (N,) of each client, and `total` in all, or as many as the quotas allow."""
        mixed = rng.permutation(rows)
        order = np.argsort(self._owner[mixed], kind="stable")
        owner = self._owner[mixed][order]
        rank = np.empty(len(mixed), dtype=np.int64)
        rank[order] = np.arange(len(mixed)) - np.searchsorted(owner, owner)
        chosen: IntArray = mixed[rank < quota[self._owner[mixed]]]
        if total is None:
            return chosen
        if len(chosen) < total:
            raise ComponentError(
                "injections",
                f"{total} rows are taken from all clients, but these can give {len(chosen)} and keep a row each. "
                "Lower per_client of the injections, or reference_rows, or population",
            )
        return chosen[:total]
