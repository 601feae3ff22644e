"""The rows of each client in every run: the federation that a scenario describes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, IntArray, Params
from fedmem.contracts.audit_set import AuditSet, References, SourceRows
from fedmem.contracts.client import ClientAlgorithm, PersonalClient
from fedmem.contracts.client_rows import ClientRows
from fedmem.contracts.coin_law import BALANCED
from fedmem.contracts.data import Examples
from fedmem.contracts.deduplication import Duplicates
from fedmem.contracts.ragged import Ragged
from fedmem.contracts.training_mode import TrainingMode
from fedmem.errors import ComponentError

if TYPE_CHECKING:
    from torch import nn

    from fedmem.modalities.modality import Modality
    from fedmem.training.prefix_store import PrefixStore


@dataclass(frozen=True, kw_only=True)
class PhaseBefore:
    """The beginning of a phase.

    Attributes:
        initials: The initial weights of each run of the first training; empty where all runs share `initial`.
        folder: The folder of the phase before.
    """

    initials: tuple[Params, ...]
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RowColumns:
    """The columns of a data set by row, sensitive attributes among them, for what is measured about rows of clients.

    `ids` (n,) are those of the rows of the data set, and `columns` maps the name of a column to its values (n,).

    >>> known = RowColumns(ids=np.array([7, 3]), columns={"sex": np.array(["f", "m"])})
    >>> known.matches("sex", "m", np.array([3, 7, -1])).tolist()
    [True, False, False]
    """

    ids: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def matches(self, column: str, value: str, ids: IntArray) -> BoolArray:
        """(m,) whether rows with these ids have a value, as text; generated rows and unknown ids have none.

        Errors: `ComponentError` for a column that the data do not have, and for a value that none of its rows has.
        """
        if column not in self.columns:
            known = ", ".join(sorted(self.columns)) or "none"
            raise ComponentError("column", f"the data have no column {column!r}; choose from: {known}")
        has_value = np.asarray(self.columns[column]).astype(str) == value
        if not has_value.any():
            some = ", ".join(np.unique(np.asarray(self.columns[column]).astype(str))[:12].tolist())
            raise ComponentError("value", f"no row has {value!r} in column {column!r}; some of its values: {some}")
        return np.isin(ids, self.ids[has_value])


@dataclass(frozen=True, kw_only=True)
class TriggeredRows:
    """Test rows of other classes than the target of a backdoor, without its trigger and with it.

    Attributes:
        kind: The name of the injection.
        target: The label of its examples.
        clean: (n, *shape) the test rows, which no client trains on.
        triggered: (n, *shape) the same rows with the trigger.
    """

    kind: str
    target: int
    clean: NDArray[np.float32]
    triggered: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Everything that a bank trains on and is measured with; built from a scenario without training.

    `store` holds every row once, a replacement row once for each client that sees it in its own way. A run is index
    lists into it. `base[k]` are the base rows of client k; audit example j is row `audit_start` + j. `trained_rows`
    (copies in all,) has one row for each copy, in audit order. It is the row that stands for an example that is in,
    usually its own. `replacement` (R, copies in all) has the rows that stand for examples that are not in. It is -1
    where none is ever needed: in and trained on in every round, or the exclusion is `remove`. `counts` says where
    each row of the data set went. All runs start from `initial`, the trained parameters of `model` and the running
    statistics that training updates, unless `initials` has weights for each. `frozen` are the other parameters and the
    buffers of `model`, which all clients and runs share. `mode` says how training differs from `model`, which is in
    evaluation mode where it does. `shifted` says whether clients see real rows in their own way. `modality` is that of
    the data set. `notes` are sentences of injections about their plans, and `warnings` are those that a reader of the
    numbers must know. `pilot` is the same federation with one run more, the pilot's, where there is one. Where a
    scenario is central, `unpooled` is the federation whose rows the only client of this one holds, client after
    client. `by_client` says that this client trains on them in that order. `client_names` (N,) name the clients and
    `class_names` the classes; both are empty where the data have no names. `foreign_rows` counts audit rows of
    other owners by injection, with a partition by owner; it is None with other partitions. `learnt` is that of the
    data set. `sources` are the rows of the data set that the audit examples come from. `test_rows` (t,) are
    the rows of the test set that `test` has, sorted; None where it has all. `duplicates` finds the duplicates among
    the rows of a client, which it does not train on; None where clients train on all of their rows. `initial_notes` are
    sentences on where the weights of `model` come from; empty where all are drawn. `prefix` has the outputs of the
    frozen part of `model` by row, where they are worth storing; it follows from the other parts. `absent_clients` take
    no part in any run, whatever their coins say. `before` is the beginning of a phase, whose first
    models are then `initials`. It is None for other trainings, and for a phase that is only planned. `row_columns` are
    the columns of the data set, for what is measured about the rows of clients; training reads none of them.
    `triggers` are test rows with the trigger of each injection that has one.
    """

    store: Examples
    base: Sequence[IntArray]
    audit: AuditSet
    audit_start: int
    trained_rows: IntArray
    replacement: IntArray
    test: Examples
    population: Examples
    references: tuple[References, ...]
    model: nn.Module
    initial: Params
    num_classes: int
    modality: Modality
    counts: Mapping[str, int]
    initials: tuple[Params, ...] = ()
    frozen: Params = field(default_factory=dict)
    mode: TrainingMode = field(default_factory=TrainingMode)
    shifted: bool = False
    pilot: Federation | None = None
    unpooled: Federation | None = None
    by_client: bool = False
    client_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    foreign_rows: Mapping[str, int] | None = None
    learnt: tuple[str, ...] = ()
    sources: SourceRows | None = None
    test_rows: IntArray | None = None
    duplicates: Duplicates | None = None
    initial_notes: tuple[str, ...] = ()
    prefix: PrefixStore | None = None
    absent_clients: tuple[int, ...] = ()
    before: PhaseBefore | None = None
    row_columns: RowColumns = field(default_factory=RowColumns)
    triggers: tuple[TriggeredRows, ...] = ()

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.base)

    @property
    def base_sizes(self) -> IntArray:
        """(N,) base rows of each client."""
        return self._client_rows.base.sizes

    @property
    def label_counts(self) -> IntArray | None:
        """(N, C) how many base rows of each client have each label; None for texts, whose rows have no single label."""
        if self.store.several_targets:
            return None
        labels = self.store.targets
        return np.stack([np.bincount(labels[rows], minlength=self.num_classes) for rows in self.base])

    @property
    def stored_frozen(self) -> Params:
        """The frozen tensors that a file of the model has; a buffer that is computed again on building is none."""
        names = self.model.state_dict().keys() if self.frozen else ()
        return {name: value for name, value in self.frozen.items() if name in names}

    def initial_of(self, run: int) -> Params:
        """The initial model of a run."""
        return self.initials[run] if self.initials else self.initial

    def personal_names(self, client: ClientAlgorithm) -> tuple[str, ...]:
        """The entries of a model that stay with each client, by its algorithm or by the `norm` of the scenario."""
        names: tuple[str, ...] = ()
        if isinstance(client, PersonalClient):
            trained = {name: value for name, value in self.initial.items() if name not in self.mode.statistics}
            names = client.personal_parameters(trained)
        return (*names, *(name for name in self.mode.personal if name not in names))

    def rows(self, run: int, client: int, round_number: int) -> IntArray:
        """Rows of `store` that a client trains on in a round of a run: base rows, then in examples or replacement rows.

        Outside its window an in example is treated as an out example. Under `exclusion: replace` the number of rows
        depends on neither coins nor rounds, unless clients leave out duplicates. No rows where the run leaves the
        client out. The array is shared and read-only. Nothing is found for clients that are not asked for.
        """
        if self.unpooled is not None:
            return np.concatenate([self.unpooled.rows(run, k, round_number) for k in range(self.unpooled.num_clients)])
        rows = self._client_rows.rows(run, client, round_number)
        return rows if self.duplicates is None else self.duplicates.keep_first(rows)

    def rows_of(self, runs: IntArray, clients: IntArray, round_number: int) -> Ragged:
        """`rows` of T pairs of a run and a client (T,), in their order, at once: `parts[t]`, or end to end."""
        if self.unpooled is not None:
            return Ragged.of([self.rows(run, 0, round_number) for run in np.asarray(runs).tolist()])
        if self.duplicates is not None:
            pairs = zip(np.asarray(runs).tolist(), np.asarray(clients).tolist(), strict=True)
            return Ragged.of([self.rows(run, client, round_number) for run, client in pairs])
        return self._client_rows.rows_of(runs, clients, round_number)

    def sizes_of(self, runs: IntArray, clients: IntArray, round_number: int) -> IntArray:
        """(T,) how many rows these are."""
        if self.unpooled is not None or self.duplicates is not None:
            return self.rows_of(runs, clients, round_number).sizes
        return self._client_rows.sizes_of(runs, clients, round_number)

    @cached_property
    def _client_rows(self) -> ClientRows:
        audit = self.audit
        return ClientRows(
            base=Ragged.of(self.base),
            owner=audit.owners,
            copies=audit.copies,
            is_in=audit.is_in,
            start=audit.start,
            stop=audit.stop,
            trained_rows=self.trained_rows,
            replacement=self.replacement,
            client_in=audit.client_in,
            relearnt=audit.relearnt,
        )


_NOT_CONTENT = ("model", "prefix", "before", "row_columns")
"""Fields that no hash counts: code, what follows from the rest, what the id of a phase names, and columns."""

_LATER: Mapping[str, Any] = {"duplicates": None, "absent_clients": (), "triggers": ()}
"""Fields that came later, with their defaults."""

_LATER_OF_PARTS: Mapping[str, Any] = {
    **dict.fromkeys(("coin_group", "inclusion_rates", "relearnt", "tied", "client_shards", "aims_at")),
    "coin_law": BALANCED,
}
"""The same of what a federation consists of."""


def digest(federation: Federation) -> str:
    """A hash of everything in a federation but the code of its model: equal for equal contents, and only for these.

    Processes that share the work of a scenario compare it, and shards of a bank are kept under it.
    """
    return _digest(federation, {}).hex()


def _digest(value: Any, known: dict[int, bytes]) -> bytes:
    """The hash of a value by those of its parts; `known` holds the hashes of arrays, by the identity of the array."""
    if id(value) in known:
        return known[id(value)]
    whole = hashlib.blake2b(digest_size=16)
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if isinstance(array, np.ndarray):
        # type and shape as well: the same bytes may be another array
        whole.update(f"array {array.dtype} {array.shape} ".encode())
        whole.update(np.ascontiguousarray(array).data)
        known[id(value)] = whole.digest()
        return known[id(value)]
    parts = _parts_of(value)
    whole.update(f"{type(value).__name__} {len(parts)} ".encode() if parts else repr(value).encode())
    for name, part in parts:
        whole.update(f"{name}=".encode())
        whole.update(_digest(part, known))
    return whole.digest()


def _is_later(name: str, part: Any) -> bool:
    """Whether a part came later and is at its default."""
    if name not in _LATER_OF_PARTS:
        return False
    default = _LATER_OF_PARTS[name]
    return part is None if default is None else bool(part == default)


def _parts_of(value: Any) -> list[tuple[str, Any]]:
    """The named parts of a record, a mapping or a sequence of records; none for any other value."""
    if isinstance(value, Federation):
        parts = {part.name: getattr(value, part.name) for part in fields(value) if part.name not in _NOT_CONTENT}
        # later fields, left out at their defaults so that stored hashes stay
        parts = {name: part for name, part in parts.items() if name not in _LATER or part != _LATER[name]}
        return list({**parts, "base": Ragged.of(value.base)}.items())
    if is_dataclass(value):
        named = [(part.name, getattr(value, part.name)) for part in fields(value)]
        # as above
        return [(name, part) for name, part in named if not _is_later(name, part)]
    if isinstance(value, Mapping):
        return [(str(name), value[name]) for name in sorted(value)]
    # sequences of numbers and of words are long, and their text says all of them
    if isinstance(value, tuple) and value and (is_dataclass(value[0]) or isinstance(value[0], Mapping)):
        return [(str(i), part) for i, part in enumerate(value)]
    # the text of an object without one of its own is its address
    text: object = type(value).__repr__
    return sorted(vars(value).items()) if text is object.__repr__ else []
