"""Audit examples: what is injected, where, with which inclusion coins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.coin_law import BALANCED, CoinLaw
from fedmem.contracts.data import Examples

if TYPE_CHECKING:
    from fedmem.modalities.text.secret_space import Candidates

Role = Literal["canary", "atypical", "typical"]


FOREVER = int(np.iinfo(np.int32).max)
"""The last round of a window that has no end."""

PEOPLE = (
    "exposure of a secret that a person wrote also reflects how likely such values are; only the comparison of in and "
    "out runs shows memorisation"
)
"""The caveat for readers of the exposure of `AuditSet.not_uniform`."""


@dataclass(frozen=True, kw_only=True)
class InjectionPlan:
    """The result of one injection: m examples, the owner of each, its number of copies, and its rounds.

    An in example is trained on in rounds `start` to `stop`, both included (None: from the beginning, to the end).
    `copy_index` (copies in all,), in the order of the examples, is -1 where a copy is the example itself. Otherwise it
    is a row of `extra`, which is trained on in place of the example and is never measured. By default every copy is the
    example. Of the copies of each example the last `unmasked` are trained on in every round of every run. `owners`
    (copies in all,) has the client that trains on each copy, in the same order, where several clients hold one example.
    By default that is its owner, which is always one of them. `replacements` (m,) are the replacement rows of the
    examples, in their order; by default they are drawn from the reserve. `taken` (t,) are ids of rows that clients
    hold. They leave the base rows of their client, which trains on them as copies; the replacement rows are then other
    rows of the same client. `notes` are sentences about the plan, which `fedmem check` prints. `warnings` are sentences
    that every reader of the numbers must know: they stand in the table and the report as well. `aims_at` (m,) has
    the example that each is made against, by its place in the plan of the injection that this one aims at.
    """

    examples: Examples
    owner: NDArray[np.int32]
    copies: NDArray[np.int32]
    start: int | None = None
    stop: int | None = None
    unmasked: int = 0
    extra: Examples | None = None
    copy_index: IntArray | None = None
    owners: NDArray[np.int32] | None = None
    replacements: Examples | None = None
    taken: IntArray | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    aims_at: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class References:
    """Fresh members of one canary family, never trained on. `inputs` (count, *shape) serve every label.

    Members of a text carry their own `targets` (count, L), and serve the one label that there is. `space` holds all
    members; where these are few enough, a canary is ranked among all members that are not canaries.
    `records`, for families with one field as target, are all values of the text up to its end.
    """

    family: str
    inputs: NDArray[Any]
    targets: IntArray | None = None
    space: Candidates | None = None
    records: Candidates | None = None


@dataclass(frozen=True, kw_only=True)
class SourceRows:
    """The values in the data set of the rows that the m audit examples come from.

    `target` (m,) is the label of the row in the data set, -1 for generated examples and for texts. `is_altered` (m,)
    says whether the example has other inputs than the row, or no row at all. `cells` maps a column of the source to its
    values as text (m,), empty for generated examples and missing cells. The columns in `sensitive` are shown to people
    only where they ask.
    """

    target: IntArray
    is_altered: BoolArray
    cells: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()


_LEFT_OUT: NDArray[np.int32] = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, kw_only=True)
class AuditSet:
    """The m audit examples of a scenario and the coins of its R runs.

    - `kind` (m,): the name of the injection.
    - `role` (m,): the role of the example, such as `canary`.
    - `owner` (m,): the owning client (-1: none).
    - `copies` (m,): how often an in example is trained on each epoch, all copies under one coin.
    - `is_in` (R, m): the coins. Columns are independent but for groups, given `inclusion_rates`. By default each column
      has exactly R/2 ones.
    - `coin_law`: the law of the coins.
    - `inclusion_rates` (R,): the probability with which each example is in a run, where runs have rates of their own.
      None under `balanced` and `rate`.
    - `coin_row` (R,): runs with the same number are twins: they have the same coins (None: no two runs have).
    - `coin_group` (m,): examples with the same number have the same coin in every run (None: each has its own). The
      number is the position of the first of them.
    - `start`, `stop` (m,): the first and the last round in which an in example is trained on (0 to FOREVER by default).
    - `relearnt` (m,): examples that are trained on in every run of a phase, whatever their coins (None: no example is).
      Coins then say which runs had trained on them before.
    - `injection` (m,): the position of its injection in the scenario (that of its kind by default).
    - `client_in` (R, N): whether a client exists in a run, decided by a coin of its own (None: every client in all).
    - `copy_owner` (copies in all,): the client that trains on each copy, in audit order (None: the owner).
    - `not_uniform`: the kinds whose examples are not drawn as their references are, such as secrets that people wrote.
      The distribution of their ranks without memorisation is not known.
    - `aims_at` (m,): the position of the example that each is made against, such as the target of a poison. It is -1
      where there is none (None: there is none for any example).

    An example that several clients hold has one coin, and its owner is one of them, drawn at random. Outs are valid
    controls because only a coin decided.
    """

    examples: Examples
    kind: NDArray[np.str_]
    role: NDArray[np.str_]
    owner: NDArray[np.int32]
    copies: NDArray[np.int32]
    is_in: BoolArray
    start: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    stop: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    injection: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    client_in: BoolArray | None = None
    copy_owner: NDArray[np.int32] | None = None
    not_uniform: tuple[str, ...] = ()
    coin_row: IntArray | None = None
    coin_group: IntArray | None = None
    relearnt: BoolArray | None = None
    coin_law: CoinLaw = BALANCED
    inclusion_rates: FloatArray | None = None
    aims_at: IntArray | None = None

    def __post_init__(self) -> None:
        places = {kind: position for position, kind in enumerate(self.kinds)}
        defaults = {
            "start": np.zeros(len(self), dtype=np.int32),
            "stop": np.full(len(self), FOREVER, dtype=np.int32),
            "injection": np.array([places[kind] for kind in self.kind.tolist()], dtype=np.int32),
        }
        for name, default in defaults.items():
            if getattr(self, name) is _LEFT_OUT:
                object.__setattr__(self, name, default)

    def is_active(self, round_number: int) -> BoolArray:
        """(m,) whether an example is trained on in this round where it is in."""
        return (self.start <= round_number) & (round_number <= self.stop)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def subject(self) -> IntArray:
        """(copies in all,) the example of each copy."""
        return np.repeat(np.arange(len(self)), self.copies)

    @property
    def owners(self) -> NDArray[np.int32]:
        """(copies in all,) the client that trains on each copy."""
        return np.repeat(self.owner, self.copies) if self.copy_owner is None else self.copy_owner

    def holds(self, clients: Sequence[int] | NDArray[Any]) -> BoolArray:
        """(C, m) whether each of these clients holds each example; no client, -1, holds none."""
        client_numbers = np.asarray(clients)[:, None]
        holds: BoolArray = (client_numbers == self.owner) & (client_numbers >= 0)
        if self.copy_owner is not None:
            client, copy = np.nonzero((client_numbers == self.copy_owner) & (client_numbers >= 0))
            holds[client, self.subject[copy]] = True
        return holds

    @property
    def owner_in(self) -> BoolArray:
        """(R, m) whether the owning client exists in a run, so that the coin of the example decides something there."""
        if self.client_in is None:
            return np.ones(self.is_in.shape, dtype=bool)
        return self.client_in[:, self.owner] | (self.owner < 0)

    @property
    def runs(self) -> int:
        """R."""
        return len(self.is_in)

    @property
    def coin_rows(self) -> IntArray:
        """(R,) the coin row of each run, numbered from 0 on: equal for twins, and otherwise 0 to R − 1."""
        if self.coin_row is None:
            return np.arange(self.runs)
        return np.unique(self.coin_row, return_inverse=True)[1].reshape(-1)

    @property
    def num_coin_rows(self) -> int:
        """How many runs have independent coins: R without twins."""
        return self.runs if self.coin_row is None else len(np.unique(self.coin_row))

    @property
    def coin_groups(self) -> IntArray:
        """(m,) the coin group of each example, numbered from 0 on: 0 to m − 1 where each has a coin of its own."""
        if self.coin_group is None:
            return np.arange(len(self))
        return np.unique(self.coin_group, return_inverse=True)[1].reshape(-1)

    def num_coin_groups(self, rows: IntArray | BoolArray) -> int:
        """How many of these examples have independent coins: all of them without groups."""
        return len(np.unique(self.coin_groups[rows]))

    def shares_coins(self, rows: IntArray | BoolArray) -> bool:
        """Whether two of these examples have the same coin."""
        return self.coin_group is not None and self.num_coin_groups(rows) < len(self.coin_groups[rows])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the order of the scenario."""
        return tuple(dict.fromkeys(self.kind.tolist()))
