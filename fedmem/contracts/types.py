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

from fedmem.contracts.client_rows import Holdings
from fedmem.contracts.ragged import Parts
from fedmem.modalities.text.secret_space import Candidates

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

FOREVER = int(np.iinfo(np.int32).max)
"""The last round of a window that has no end."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of data with an identity that survives partitioning and injection.

    `inputs` (n, *shape) float32, in [0, 1] for images, or int64 token numbers of texts; `targets` (n,) int64, of texts
    (n, L); `ids` (n,) int64: the row of the data set, or negative for generated examples.

    >>> rows = Examples(inputs=np.zeros((3, 2), np.float32), targets=np.array([0, 1, 0]), ids=np.arange(3))
    >>> len(rows), rows.take(np.array([2])).ids.tolist()
    (3, [2])
    """

    inputs: NDArray[Any]
    targets: IntArray
    ids: IntArray

    def __post_init__(self) -> None:
        assert len(self.inputs) == len(self.targets) == len(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> IntArray:
        """(n,) the targets where there is one for each row; of texts zeros, since a sequence has no class."""
        return self.targets if self.targets.ndim == 1 else np.zeros(len(self), dtype=np.int64)

    @property
    def asked(self) -> IntArray:
        """(n,) how many targets each row has: one, of texts those that are not -1."""
        return np.ones(len(self), dtype=np.int64) if self.targets.ndim == 1 else (self.targets != -1).sum(axis=1)

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
    """What a dataset component loads.

    `natural` (n,) is the owner of each training row where the data know one. `sensitive` maps the name of an
    attribute of people to its values (n,), whole numbers or text, for the training rows in their order.
    `blocks` describes the columns of a table, whose inputs are (n, width): the sizes of consecutive groups of columns,
    1 for a number in [0, 1], k > 1 for a category as a one-hot of k; they add up to the width. Empty: no table.
    `vocabulary` are the V tokens of a text, whose inputs are their numbers (n, L) int64 and whose targets (n, L) are
    the tokens that come next, -1 where nothing is asked; `num_classes` is V. Empty: no text.
    """

    train: Examples
    test: Examples
    num_classes: int
    natural: IntArray | None = None
    sensitive: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    blocks: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert not self.vocabulary or self.num_classes == len(self.vocabulary)
        assert not self.blocks or self.train.inputs.shape[1:] == (sum(self.blocks),)
        assert all(len(values) == len(self.train) for values in self.sensitive.values())


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """The base rows of one client, before injection."""

    client: int
    examples: Examples


@dataclass(frozen=True, kw_only=True)
class Space:
    """What is public about the inputs of a data set: nothing in it tells one row from another.

    `mean`, `low`, `high` (*shape) are taken over all `num_rows` training rows; `blocks` and `vocabulary` are those of
    `Dataset`; `frequencies` (V,) are the shares of the tokens in the training rows of a text.

    >>> rows = Examples(inputs=np.array([[0.0], [1.0]], np.float32), targets=np.array([0, 1]), ids=np.arange(2))
    >>> Space.of(Dataset(train=rows, test=rows, num_classes=2)).mean.tolist()
    [0.5]
    """

    num_classes: int
    num_rows: int
    mean: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    blocks: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()
    frequencies: FloatArray = field(default_factory=lambda: np.zeros(0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return self.mean.shape

    @staticmethod
    def of(data: Dataset) -> Space:
        """The space of a data set with at least one training row."""
        inputs, tokens = data.train.inputs, np.zeros(0)
        if data.vocabulary:
            # what is asked for is every token of a row but the first
            targets = data.train.targets
            there = np.concatenate([inputs[:, 0], targets[targets >= 0]])
            tokens = np.bincount(there, minlength=len(data.vocabulary)) / len(there)
        return Space(
            num_classes=data.num_classes,
            num_rows=len(inputs),
            mean=inputs.mean(axis=0, dtype=np.float64).astype(np.float32),
            low=inputs.min(axis=0),
            high=inputs.max(axis=0),
            blocks=data.blocks,
            vocabulary=data.vocabulary,
            frequencies=tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Injected:
    """What one injection adds: m examples, who holds each, how many times, and in which rounds.

    An in example is trained on in rounds `start` to `stop`, both included (None: from the beginning, to the end).
    `slots` (copies in all,), in the order of the examples, says what each copy is: -1 the example itself, otherwise a
    row of `extra`, which only stands for examples and is never measured; left out, every copy is the example itself.
    Of the copies of each example the last `unmasked` are trained on in every round of every run.
    `owners` (copies in all,), likewise, says who trains on each copy where several clients hold one example; left out,
    that is its holder, who is always one of them. `twins` (m,) are the fill-ins of the examples, in their order; left
    out, fill-ins are drawn from the reserve.
    """

    examples: Examples
    holder: NDArray[np.int32]
    copies: NDArray[np.int32]
    start: int | None = None
    stop: int | None = None
    unmasked: int = 0
    extra: Examples | None = None
    slots: IntArray | None = None
    owners: NDArray[np.int32] | None = None
    twins: Examples | None = None


@dataclass(frozen=True, kw_only=True)
class References:
    """Fresh members of one canary family, never trained on. `inputs` (count, *shape) serve every label.

    Members of a text carry their own `targets` (count, L), and serve the one label that there is. `space` are all
    members there are: where these are few enough, a canary is ranked among all that are no canary. `records`, for
    families that are asked for one field alone, are all that the text up to its end could have been.
    """

    family: str
    inputs: NDArray[Any]
    targets: IntArray | None = None
    space: Candidates | None = None
    records: Candidates | None = None


_LEFT_OUT: NDArray[np.int32] = np.empty(0, dtype=np.int32)


@dataclass(frozen=True, kw_only=True)
class AuditSet:
    """The m audit examples of a scenario and the coins of its R runs.

    `kind` (m,) is the name of the injection, `role` (m,) what it is; `holder` (m,) the client (-1: nobody);
    `copies` (m,) how often an in example is trained on each epoch, all copies under one coin;
    `is_in` (R, m) the coins: each column has exactly R/2 ones, columns are independent;
    `start`, `stop` (m,) the first and the last round in which an in example is trained on (0 to FOREVER if left out);
    `injection` (m,) the position of its injection in the scenario (that of its kind if left out);
    `client_in` (R, N) whether a client exists in a run, decided by a coin of its own (None: every client in all).
    `owner` (copies in all,) who trains on each copy, in audit order (None: the holder): an example that several clients
    hold has one coin, and its holder is one of them, drawn at random. Outs are valid controls because only a coin
    decided.
    """

    examples: Examples
    kind: NDArray[np.str_]
    role: NDArray[np.str_]
    holder: NDArray[np.int32]
    copies: NDArray[np.int32]
    is_in: BoolArray
    start: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    stop: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    injection: NDArray[np.int32] = field(default_factory=lambda: _LEFT_OUT)
    client_in: BoolArray | None = None
    owner: NDArray[np.int32] | None = None

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

    def active(self, round: int) -> BoolArray:
        """(m,) whether an example is trained on in this round where it is in."""
        return (self.start <= round) & (round <= self.stop)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def subject(self) -> IntArray:
        """(copies in all,) the example of each copy."""
        return np.repeat(np.arange(len(self)), self.copies)

    @property
    def owners(self) -> NDArray[np.int32]:
        """(copies in all,) who trains on each copy."""
        return np.repeat(self.holder, self.copies) if self.owner is None else self.owner

    def holds(self, clients: Sequence[int] | NDArray[Any]) -> BoolArray:
        """(C, m) whether each of these clients holds each example; nobody, -1, holds none."""
        asked = np.asarray(clients)[:, None]
        found: BoolArray = (asked == self.holder) & (asked >= 0)
        if self.owner is not None:
            client, copy = np.nonzero((asked == self.owner) & (asked >= 0))
            found[client, self.subject[copy]] = True
        return found

    @property
    def holder_in(self) -> BoolArray:
        """(R, m) whether the holder exists in a run, so that the coin of the example decides something there."""
        if self.client_in is None:
            return np.ones(self.is_in.shape, dtype=bool)
        return self.client_in[:, self.holder] | (self.holder < 0)

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

    `store` holds every row once, a fill-in once for each client that sees it in its own way; a run is index lists into
    it. `base[k]` are the base rows of client k; audit example j is row `audit_start` + j. Copy by copy in audit order,
    `trained` (copies in all,) are the rows that stand for an example that is in, usually its own, and `fill` (R, copies
    in all) those that stand for one that is not (-1 where none is ever needed: in and trained on in every round, or the
    exclusion is `remove`). `counts` says where each row of the data set went. All runs start from `initial`, unless
    `initials` has weights for each. `shifted` says whether clients see real rows in their own way. `blocks` and
    `vocabulary` are those of `Dataset`. `pilot` is the same federation with one run more, the pilot's, where there is
    one. `apart` is the federation whose rows the only client of this one holds, client after client, where a scenario
    is central; `by_client` says that it trains on them in that order.
    """

    store: Examples
    base: Sequence[IntArray]
    audit: AuditSet
    audit_start: int
    trained: IntArray
    fill: IntArray
    test: Examples
    population: Examples
    references: tuple[References, ...]
    model: nn.Module
    initial: Params
    num_classes: int
    counts: Mapping[str, int]
    initials: tuple[Params, ...] = ()
    shifted: bool = False
    blocks: tuple[int, ...] = ()
    vocabulary: tuple[str, ...] = ()
    pilot: Federation | None = None
    apart: Federation | None = None
    by_client: bool = False

    @property
    def num_clients(self) -> int:
        """N."""
        return len(self.base)

    @property
    def base_sizes(self) -> IntArray:
        """(N,) base rows of each client."""
        return self._holdings.base.sizes

    def initial_of(self, run: int) -> Params:
        """What a run starts from."""
        return self.initials[run] if self.initials else self.initial

    def rows(self, run: int, client: int, round: int) -> IntArray:
        """The rows of `store` that a client trains on in a round of a run: base rows, then in examples or fill-ins.

        Outside its window an in example is treated as one that is out. Under `exclusion: replace` the number of rows
        depends on neither coins nor rounds. No rows where the run leaves the client out. The array is shared and
        read-only. Nothing is found for clients that are not asked for.
        """
        if self.apart is not None:
            return np.concatenate([self.apart.rows(run, k, round) for k in range(self.apart.num_clients)])
        return self._holdings.rows(run, client, round)

    def rows_of(self, runs: IntArray, clients: IntArray, round: int) -> Parts:
        """`rows` of T pairs of a run and a client (T,), in their order, at once: `parts[t]`, or end to end."""
        if self.apart is not None:
            return Parts.of([self.rows(run, 0, round) for run in np.asarray(runs).tolist()])
        return self._holdings.rows_of(runs, clients, round)

    def sizes_of(self, runs: IntArray, clients: IntArray, round: int) -> IntArray:
        """(T,) how many rows these are."""
        if self.apart is not None:
            return self.rows_of(runs, clients, round).sizes
        return self._holdings.sizes_of(runs, clients, round)

    @cached_property
    def _holdings(self) -> Holdings:
        audit = self.audit
        return Holdings(
            base=Parts.of(self.base),
            owner=audit.owners,
            copies=audit.copies,
            is_in=audit.is_in,
            start=audit.start,
            stop=audit.stop,
            trained=self.trained,
            fill=self.fill,
            client_in=audit.client_in,
        )


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

    Of a passage, `loss` is the mean of -log p over the tokens that are asked, so that exp(-loss) is the geometric mean
    of their probabilities, `margin` the log odds of that, log p - log(1 - p), and `correct` the share of these tokens
    that beat every other, 0..1. All are NaN where nothing is asked.
    """

    round: int
    level: Level
    set: str
    run: NDArray[np.int32]
    client: NDArray[np.int32]
    loss: FloatArray
    margin: FloatArray
    correct: BoolArray | FloatArray


@dataclass(frozen=True, kw_only=True)
class ReferenceEvidence:
    """Where T transitions rank the canaries of one family among `count` fresh references of the same label.

    Or among all other members of the space that they are drawn from, `count` of them, where that is small enough.

    `subjects` (c,) are positions in the audit set; `less`, `ties` (T, c) count references with smaller and equal
    loss; `quantiles` (T, L, 256) are the reference losses of each of `labels` (L,) at 256 evenly spaced quantiles,
    NaN where the client of the transition holds no canary of that label. Of passages all of these are losses summed
    over the tokens that are asked, since members of one family may differ in length.
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
    """One client's part in one round of one run.

    `probability` is that with which its sampler picked it, given all that was known before the round, None where that
    is not known.
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

    `exclusion` says whether a row stands in for an audit example that is out (`replace`) or none does (`remove`).
    """

    audit: AuditSet
    evidence: tuple[Evidence, ...]
    references: tuple[ReferenceEvidence, ...]
    participation: tuple[Participation, ...]
    seed: int
    roster: str = "shared"
    exclusion: str = "replace"
    targets: Mapping[str, IntArray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Redeals:
    """The coins of a bank as they fell, and as they could have fallen.

    `coins` (P + 1, R, m): the first are the bank's own, each of the others permutes the column of every example by
    itself, which is the law of the coins. `shuffles` (S, R) are permutations of the runs, one for all examples: coins
    read in their order say nothing about the models either, and keep what examples have in common.
    """

    coins: BoolArray
    shuffles: IntArray


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What a value owes to each example (m,) and to each pair of a run and an example (R, m), to first order.

    Both are measured from their mean, and `cells` from the mean of its example; see `twoway`.
    """

    examples: FloatArray
    cells: FloatArray


@dataclass(frozen=True, kw_only=True)
class Models:
    """Which models a view reads: S pairs of a round and a client (-1: the aggregate), each in all R runs.

    `of` (Q, m) is the pair that shows audit example j as the q-th model of its place, -1 where there is none.
    """

    runs: int
    round: IntArray
    client: IntArray
    of: IntArray


@dataclass(frozen=True, kw_only=True)
class SetEvidence:
    """What the models of a view say about all n examples of one set; gathered from `blocks` only when asked for.

    `targets` (n,) are the labels of the set where the bank holds them, otherwise all -1.
    """

    models: Models
    blocks: tuple[Evidence, ...]
    targets: IntArray

    @property
    def size(self) -> int:
        """n."""
        return len(self.targets)

    def loss(self, pair: int) -> FloatArray:
        """(R, n) losses in nats at one pair of `models`, NaN for runs in which it was not observed."""
        return self._gathered(pair, "loss")

    def correct(self, pair: int) -> FloatArray:
        """(R, n) correctness, 0 or 1, likewise."""
        return self._gathered(pair, "correct")

    def _gathered(self, pair: int, name: str) -> FloatArray:
        found = np.full((self.models.runs, self.size), np.nan)
        for block in self.blocks:
            if block.round == self.models.round[pair]:
                rows = block.client == self.models.client[pair]
                found[block.run[rows]] = getattr(block, name)[rows]
        return found


@dataclass(frozen=True, kw_only=True)
class RankEvidence:
    """The stored quantiles of reference losses behind the ranks of a view, gathered when asked for."""

    models: Models
    blocks: tuple[ReferenceEvidence, ...]

    def quantiles(self, pair: int, family: str, label: int) -> FloatArray:
        """(R, 256) reference losses of one label at one pair of `models`, NaN where none are stored."""
        found = np.full((self.models.runs, 256), np.nan)
        for block in self.blocks:
            if (block.round, block.family) == (self.models.round[pair], family):
                rows = block.client == self.models.client[pair]
                for column in np.flatnonzero(block.labels == label):
                    found[block.run[rows]] = block.quantiles[rows, column]
        return found


@dataclass(frozen=True, kw_only=True)
class View:
    """What one place shows of every audit example in every run, at one round.

    A place is (level, setting): (`local`, `owner`), (`local`, `others`) or (`global`, ``). Arrays are (R, Q, m) with
    Q models at that place (1 for owner and global), NaN where there is none: the holder was not in the cohort, or
    the model is not one of the others. `rank` = 1 + smaller + ties/2 among `references` (m,) fresh ones, NaN for
    examples that are no canaries. `round` is FINAL for the summary. Where a run leaves the holder out as a client, its
    examples are NaN at every place, since the coin of the example decides nothing there.

    `sets` says more of the same models, about whole sets of examples (`test`, `population`, and `audit` with nothing
    hidden), `ranked` about the references behind the ranks. `exclusion` is that of the bank.
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
    redeals: Redeals
    sets: Mapping[str, SetEvidence] = field(default_factory=dict)
    ranked: RankEvidence | None = None
    exclusion: str = "replace"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number about one kind of audit example at one place, with what is needed to compare and to bound it.

    `influence` is what its interval, and that of differences and ratios, follows from (`twoway.influence` makes it);
    `null` the value that no memorisation gives; `n` how many audit examples stand behind it; `bounds` what it can be at
    least and at most; `examples` are they, and `per_example` (n,) the value of each single one, with an interval where
    one is known, from `per_example_n` runs. `p` is that of no memorisation under re-dealt coins (`redealing`), from
    `redeals` of them; NaN where it was not asked for. `signed` says that effects of both signs are summed, so that they
    cancel: no share of such a sum is kept by aggregation, and there is no retention of it.
    """

    metric: str
    kind: str
    value: float
    influence: Influence
    null: float
    n: int
    bounds: tuple[float, float] = (-math.inf, math.inf)
    p: float = math.nan
    redeals: int = 0
    setting: str = ""
    examples: IntArray | None = None
    per_example: FloatArray | None = None
    per_example_low: FloatArray | None = None
    per_example_high: FloatArray | None = None
    per_example_n: IntArray | None = None
    signed: bool = False


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
