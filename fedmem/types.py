"""The small frozen records that the parts exchange.

Letters everywhere: N clients, K in the cohort, R runs, m audit examples, C classes, P parameters, T transitions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

Level = Literal["local", "sum", "global"]
"""Where a model was read: at one client, summed over some, or after aggregation."""

Role = Literal["canary", "atypical", "typical"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Params = dict[str, "Tensor"]
"""Named parameters; the stacked form has one leading axis."""

FINAL = -1
"""The round of a summary: each example at the last observed round in which its holder took part."""

EVERYWHERE = -1
"""The client (or run) of a value that belongs to no single client (or run)."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of data with an identity that survives partitioning and injection.

    `inputs` (n, *shape) float32 in [0, 1] for images, `targets` (n,) int64, `ids` (n,) int64: the row of the data
    set, or negative for generated examples.

    >>> rows = Examples(inputs=np.zeros((3, 2), np.float32), targets=np.array([0, 1, 0]), ids=np.arange(3))
    >>> len(rows), rows.take(np.array([2])).ids.tolist()
    (3, [2])
    """

    inputs: NDArray[np.float32]
    targets: IntArray
    ids: IntArray

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.targets) == len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> Examples:
        """The rows at these positions, in this order."""
        return Examples(inputs=self.inputs[rows], targets=self.targets[rows], ids=self.ids[rows])

    @staticmethod
    def concatenate(parts: Sequence[Examples]) -> Examples:
        """All rows of all parts, in order; at least one part."""
        return Examples(
            inputs=np.concatenate([part.inputs for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            ids=np.concatenate([part.ids for part in parts]),
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a dataset component loads. `natural` (n,) is the owner of each training row where the data know one."""

    train: Examples
    test: Examples
    num_classes: int
    natural: IntArray | None = None
    sensitive: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """The base rows of one client, before injection."""

    client: int
    examples: Examples


@dataclass(frozen=True, kw_only=True)
class Injected:
    """What one injection adds: m examples, who holds each, how many times."""

    examples: Examples
    holder: NDArray[np.int32]
    copies: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class References:
    """Fresh members of one canary family, never trained on. `inputs` (count, *shape) serve every label."""

    family: str
    inputs: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class AuditSet:
    """The m audit examples of a scenario and the coins of its R runs.

    `kind` (m,) is the name of the injection, `role` (m,) what it is; `holder` (m,) the client (-1: nobody);
    `copies` (m,) how often an in example is trained on each epoch, all copies under one coin;
    `is_in` (R, m) the coins: each column has exactly R/2 ones, columns are independent.
    Outs are valid controls because only a coin decided.
    """

    examples: Examples
    kind: NDArray[np.str_]
    role: NDArray[np.str_]
    holder: NDArray[np.int32]
    copies: NDArray[np.int32]
    is_in: BoolArray

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def runs(self) -> int:
        """R."""
        return len(self.is_in)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds in the order of the scenario."""
        return tuple(dict.fromkeys(self.kind.tolist()))


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Everything that a bank trains on and is measured with; built from a scenario without training.

    `store` holds every row once; a run is index lists into it. `base[k]` are the base rows of client k; audit example
    j is row `audit_start` + j; `fill` (R, copies in all) the rows that stand in for outs (-1 where the example is in,
    is held by nobody, or the exclusion is `remove`), laid out copy by copy in audit order.
    `counts` says where each row of the data set went.
    """

    store: Examples
    base: tuple[IntArray, ...]
    audit: AuditSet
    audit_start: int
    fill: IntArray
    test: Examples
    population: Examples
    references: tuple[References, ...]
    model: nn.Module
    initial: Params
    num_classes: int
    counts: Mapping[str, int]

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.base)

    def rows(self, run: int, client: int) -> IntArray:
        """The rows of `store` that this client trains on in this run: base rows, then in examples or their fill-ins.

        Under `exclusion: replace` the number of rows does not depend on the coins. The array is shared and read-only.
        """
        return self._rows[run][client]

    @cached_property
    def _rows(self) -> tuple[tuple[IntArray, ...], ...]:
        """Every run and client at once, because training asks for each of them in every round."""
        subject = np.repeat(np.arange(len(self.audit)), self.audit.copies)
        held = [np.flatnonzero(self.audit.holder[subject] == client) for client in range(self.num_clients)]
        table = []
        for run in range(self.audit.runs):
            row = np.where(self.audit.is_in[run, subject], self.audit_start + subject, self.fill[run])
            lists = [np.concatenate([base, row[at][row[at] >= 0]]) for base, at in zip(self.base, held, strict=True)]
            for rows in lists:
                rows.flags.writeable = False
            table.append(tuple(lists))
        return tuple(table)


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One step from a model to the next, at a client or at the server; probes never ask which.

    At level `local`, `sent` left the client and `kept` is what it holds afterwards; they are one object unless
    something acts between. At level `global` both are the aggregate. Round 0 is the initial model, level `global`,
    `before` is `kept`.
    """

    run: int
    round: int
    level: Level
    client: int
    before: Params
    sent: Params
    kept: Params
    num_examples: int
    clients: tuple[int, ...] = ()
    report: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What T transitions of one round and level say about the n examples of one set.

    `run`, `client` (T,) int32 (client -1 at level `global`); `loss` (T, n) = -log p_y in nats;
    `margin` (T, n) = log p_y - log sum_{c != y} p_c, from logits in float64; `correct` (T, n): p_y beats every
    other class strictly.
    """

    round: int
    level: Level
    set: str
    run: NDArray[np.int32]
    client: NDArray[np.int32]
    loss: FloatArray
    margin: FloatArray
    correct: BoolArray


@dataclass(frozen=True, kw_only=True)
class ReferenceEvidence:
    """Where T transitions rank the canaries of one family among `count` fresh references of the same label.

    `subjects` (c,) are positions in the audit set; `less`, `ties` (T, c) count references with smaller and equal
    loss; `quantiles` (T, L, 256) are the reference losses of each of `labels` (L,) at 256 evenly spaced quantiles,
    NaN where the client of the transition holds no canary of that label.
    """

    round: int
    level: Level
    family: str
    run: NDArray[np.int32]
    client: NDArray[np.int32]
    subjects: IntArray
    count: int
    less: NDArray[np.int32]
    ties: NDArray[np.int32]
    labels: IntArray
    quantiles: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Participation:
    """One client's part in one round of one run."""

    run: int
    round: int
    client: int
    num_examples: int
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The stored evidence of R runs: all that an estimator may read."""

    audit: AuditSet
    evidence: tuple[Evidence, ...]
    references: tuple[ReferenceEvidence, ...]
    participation: tuple[Participation, ...]
    seed: int
    roster: str = "shared"


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """The B draws of a two-way cluster bootstrap, as multiplicities: `runs` (B, R), `examples` (B, m).

    Examples are drawn within their kind. One object serves every estimate of a bank, so that differences are paired.
    """

    runs: FloatArray
    examples: FloatArray


@dataclass(frozen=True, kw_only=True)
class View:
    """What one place shows of every audit example in every run, at one round.

    A place is (level, setting): (`local`, `owner`), (`local`, `others`) or (`global`, ``). Arrays are (R, Q, m) with
    Q models at that place (1 for owner and global), NaN where there is none: the holder was not in the cohort, or
    the model is not one of the others. `rank` = 1 + smaller + ties/2 among `references` (m,) fresh ones, NaN for
    examples that are no canaries. `round` is FINAL for the summary.
    """

    round: int
    level: Level
    setting: str
    audit: AuditSet
    loss: FloatArray
    margin: FloatArray
    correct: FloatArray
    rank: FloatArray
    references: IntArray
    resampling: Resampling


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number about one kind of audit example at one place, with what is needed to compare and to bound it.

    `replicates` (B,) are the values under the draws of `Resampling`; `null` the value that no memorisation gives;
    `n` how many audit examples stand behind it; `examples` are they, and `per_example` (n,) the value of each single
    one, with an interval where one is known, from `per_example_n` runs.
    """

    metric: str
    kind: str
    value: float
    replicates: FloatArray
    null: float
    n: int
    setting: str = ""
    examples: IntArray | None = None
    per_example: FloatArray | None = None
    per_example_low: FloatArray | None = None
    per_example_high: FloatArray | None = None
    per_example_n: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One measured number. The observer adds run, round, level, client and source, so that nobody can mislabel it."""

    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 1
    subject: str = ""
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A reading with its place: one row of `measurements.parquet`. Run and client are -1 where they do not apply."""

    run: int
    round: int
    level: Level
    client: int
    source: str
    reading: Reading
