"""The evidence of models on examples, and the bank of all runs that estimators read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray, Params
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.measurement import NO_CLIENT, Level, Measurement
from fedmem.contracts.sampler import Pilot

BEFORE = "_before"
"""After the name of a set: the same examples at the models before an unlearner."""

TRAINED = "audit_trained"
"""The set of the audit examples at the models with which the phase that forgot them began."""


@dataclass(frozen=True, kw_only=True)
class ClientIdentity:
    """By what a client of a Flower app is known.

    Attributes:
        value: The client: a number or a name, by which two replies are of the same client.
        source: Where the value is from: `clients` (a mapping of the user), the name of an entry in the reply such as
            `partition-id`, `trace`, or `node`.
        node: The id that Flower gave to the node.

    >>> ClientIdentity(value=3, source="partition-id", node=8123).value
    3
    """

    value: int | str
    source: str
    node: int


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One step from a model to the next, at a client or at the server; probes never ask which.

    At level `local`, `sent` left the client and `kept` is what it holds afterwards; they are one object unless
    something acts between. At level `global` both are the aggregate. Round 0 is the initial model, level `global`,
    `before` is `kept`. `identity` is the name or number by which the client of a user's Flower app is known. It is None
    where `client` is the number of a client of a scenario.
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
    identity: ClientIdentity | None = None

    @classmethod
    def at_client(
        cls,
        *,
        run: int,
        round_number: int,
        client: int,
        before: Params,
        sent: Params,
        kept: Params,
        num_examples: int,
        report: Mapping[str, float],
    ) -> Transition:
        """The local transition of a client."""
        return cls(
            run=run,
            round=round_number,
            level="local",
            client=client,
            before=before,
            sent=sent,
            kept=kept,
            num_examples=num_examples,
            report=report,
        )

    @classmethod
    def at_server(
        cls, *, run: int, round_number: int, before: Params, after: Params, sizes: Mapping[int, int] | None = None
    ) -> Transition:
        """The global transition of a round, from the models of clients with these numbers of examples.

        >>> Transition.at_server(run=0, round_number=1, before={}, after={}, sizes={3: 20, 5: 10}).num_examples
        30
        """
        sizes = sizes or {}
        return cls(
            run=run,
            round=round_number,
            level="global",
            client=NO_CLIENT,
            before=before,
            sent=after,
            kept=after,
            num_examples=sum(sizes.values()),
            clients=tuple(sizes),
        )


@dataclass(frozen=True, kw_only=True)
class EvidenceHead:
    """The models and the examples of evidence.

    - `run`, `client` (T,) int32 (NO_CLIENT at level `global`).
    - `rows` (n,): the numbers of the examples in their set; None where they are all of it.
    """

    round: int
    level: Level
    set: str
    run: NDArray[np.int32]
    client: NDArray[np.int32]
    rows: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence(EvidenceHead):
    """The evidence of T transitions of one round and level on the n examples of one set.

    - `loss` (T, n) = -log p_y in nats.
    - `margin` (T, n) = log p_y - log sum_{c != y} p_c, from logits in float64.
    - `correct` (T, n): p_y beats every other class strictly.

    For a passage, `loss` is the mean of -log p over the tokens that are asked. So exp(-loss) is the geometric mean p of
    their probabilities. `margin` is the log odds of that, log p - log(1 - p). `correct` is the share of these tokens
    that beat every other, 0..1. All are NaN where nothing is asked.

    For a row without label, `margin` is its log-density in nats, `loss` is minus that, and `correct` is NaN.

    Arrays are float64, or float32 where the scenario says so (`observe.test.precision`). Then `loss` is computed from
    the rounded `margin`.
    """

    loss: FloatArray
    margin: FloatArray
    correct: BoolArray | FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """(T, n)."""
        return self.margin.shape[0], self.margin.shape[1]

    @property
    def size(self) -> int:
        """T n."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the margins."""
        return self.margin.dtype

    @property
    def has_shares(self) -> bool:
        """Whether `correct` are shares, as for texts."""
        return self.correct.dtype != np.bool_


@dataclass(frozen=True, kw_only=True)
class ReferenceEvidence:
    """Where T transitions rank the canaries of one family among `count` fresh references of the same label.

    Or among all other members of the space that they are drawn from, `count` of them, where that is small enough.

    - `subjects` (c,): positions in the audit set.
    - `less`, `ties` (T, c): the number of references with smaller and equal loss.
    - `quantiles` (T, L, 256): the reference losses of each of `labels` (L,) at 256 evenly spaced quantiles. NaN where
      the client of the transition holds no canary of that label.

    For passages all of these are losses summed over the tokens that are asked, since members of one family may differ
    in length.
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
class SignalEvidence:
    """The values of one quantity of a signal at T transitions of one round and level, on n examples of one set.

    - `run`, `client` (T,) int32 (NO_CLIENT at level `global`).
    - `values` (T, n), NaN where the signal is not defined or was not asked for. On the audit set they are float64, on
      other sets float32.
    - `set` is the set of the examples. `rows` (n,) are their positions in it, ascending; None means all.
    """

    round: int
    level: Level
    name: str
    run: NDArray[np.int32]
    client: NDArray[np.int32]
    values: FloatArray | NDArray[np.float32]
    set: str = "audit"
    rows: IntArray | None = None


@dataclass(frozen=True, kw_only=True)
class Participation:
    """One client's part in one round of one run.

    `probability` is the probability with which its sampler picked it, given all that was known before the round; None
    where it is not known.
    """

    run: int
    round: int
    client: int
    num_examples: int
    failed: bool
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bank:
    """The stored evidence of R runs: all that an estimator may read. `targets` are the labels of a set, by its name.

    `inputs` are the examples of a set by its name: those of the population, where an attack reads them.

    `exclusion` says whether a row stands in for an audit example that is out (`replace`) or none does (`remove`).
    `label_counts` (N, C) has how many base rows of each client have each label. It is None for texts, and where nobody
    knows the rows of clients.
    """

    audit: AuditSet
    evidence: tuple[Evidence, ...]
    references: tuple[ReferenceEvidence, ...]
    participation: tuple[Participation, ...]
    seed: int
    roster: str = "shared"
    exclusion: str = "replace"
    targets: Mapping[str, IntArray] = field(default_factory=dict)
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    label_counts: IntArray | None = None
    signals: tuple[SignalEvidence, ...] = ()


Lost = Mapping[tuple[int, int], str]
"""(round, client) -> why it failed: the clients that are dropped in all runs, since they failed in one."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """The clients that were dropped in a shard.

    Attributes:
        known: those that had failed in other runs when the training of the shard began.
        found: those that failed in its own runs.
    """

    known: Lost
    found: Lost

    @property
    def all(self) -> Lost:
        """Both."""
        return {**self.known, **self.found}


@dataclass(frozen=True, kw_only=True)
class TrainedBank:
    """Runs of a bank with all that was read while they were trained, and what did the training.

    Of some of the runs, a shard, or of all of them. `failures` are the dropped clients, `seconds` the time that
    processes spent, `untraced` what was not traced (`Executor.untraced_functions`), `pilot` what picked the
    cohorts, where something did. `card` is the name of the GPU, None on a processor.
    """

    bank: Bank
    measurements: tuple[Measurement, ...]
    reconstructions: Mapping[str, NDArray[Any]]
    params: tuple[Params, ...]
    executor: str
    server: str
    workers: int
    device: str
    seconds: Mapping[str, float]
    failures: Lost = field(default_factory=dict)
    untraced: Mapping[str, str] = field(default_factory=dict)
    pilot: Pilot | None = None
    card: str | None = None
