"""Contracts of estimators: their inputs, their results and their methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import BoolArray, FloatArray, IntArray
from fedmem.contracts.audit_set import AuditSet
from fedmem.contracts.declarations import declare, read_declaration
from fedmem.contracts.evidence import Evidence, ReferenceEvidence, SignalEvidence
from fedmem.contracts.measurement import NO_LABELS, Labels, Level, Reading
from fedmem.contracts.needs import YES_OR_NO, Needs
from fedmem.contracts.series import Series


@dataclass(frozen=True, kw_only=True)
class CoinPermutations:
    """The coins of a bank, and re-dealt coins of the same law.

    `coins` (P + 1, R, m): the first are those of the bank. Each of the others permutes the column of every example
    independently, which is the law of the coins. With `has_rates`, runs have inclusion rates of their own, with which
    coins are drawn again. `shuffles` (S, R) are permutations of the runs, one for all examples; none where runs have
    rates. Coins in their order are independent of the models too, and keep the dependence between examples.

    Runs with the same `coin_row` (R,) are twins: their coins stay equal in all of these (None: no two runs are twins).
    So do the coins of examples with the same `coin_group` (m,) (None: each example has its own).
    """

    coins: BoolArray
    shuffles: IntArray
    coin_row: IntArray | None = None
    coin_group: IntArray | None = None
    has_rates: bool = False


@dataclass(frozen=True, kw_only=True)
class Influence:
    """First-order contributions to a value, of each example (m,) and of each pair of a run and an example (R, m).

    Both are measured from their mean, and `cells` from the mean of its example; see `two_way`. `runs` (R,) are those of
    examples that share so few coins that only runs are clusters; see `coin_groups`. None where there are none.
    """

    examples: FloatArray
    cells: FloatArray
    runs: FloatArray | None = None


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
    """Outputs of the models of a view on all n examples of one set; gathered from `blocks` on demand.

    `targets` (n,) are the labels of the set where the bank holds them, otherwise all -1. `inputs` (n, ...) are the
    examples themselves, None where the bank does not hold them. `signals` are the values of signals on some of the
    examples; those on the audit set are `View.signals`.
    """

    models: Models
    blocks: tuple[Evidence, ...]
    targets: IntArray
    inputs: NDArray[Any] | None = None
    signals: tuple[SignalEvidence, ...] = ()

    @property
    def size(self) -> int:
        """n."""
        return len(self.targets)

    def loss(self, pair: int) -> FloatArray:
        """(R, n) losses in nats at one pair of `models`, NaN for runs in which it was not observed."""
        return self._gather(pair, "loss")

    def correct(self, pair: int) -> FloatArray:
        """(R, n) correctness, 0 or 1, of the same examples."""
        return self._gather(pair, "correct")

    def margin(self, pair: int) -> FloatArray:
        """(R, n) margins of the same examples."""
        return self._gather(pair, "margin")

    def signal(self, pair: int, name: str) -> FloatArray | None:
        """(R, n') values of a signal on the rows that it was read on, NaN for runs in which it was not.

        None where it was not read at the round of this pair.
        """
        values = None
        for block in self.signals:
            if (block.name, block.round) == (name, self.models.round[pair]):
                rows = block.client == self.models.client[pair]
                values = np.full((self.models.runs, block.values.shape[1]), np.nan) if values is None else values
                values[block.run[rows]] = block.values[rows]
        return values

    def _gather(self, pair: int, name: str) -> FloatArray:
        values = np.full((self.models.runs, self.size), np.nan)
        for block in self.blocks:
            if block.round == self.models.round[pair]:
                rows = block.client == self.models.client[pair]
                values[block.run[rows]] = getattr(block, name)[rows]
        return values


@dataclass(frozen=True, kw_only=True)
class RankEvidence:
    """The stored quantiles of reference losses behind the ranks of a view, gathered on demand."""

    models: Models
    blocks: tuple[ReferenceEvidence, ...]

    def quantiles(self, pair: int, family: str, label: int) -> FloatArray:
        """(R, 256) reference losses of one label at one pair of `models`, NaN where none are stored."""
        quantiles = np.full((self.models.runs, 256), np.nan)
        for block in self.blocks:
            if (block.round, block.family) == (self.models.round[pair], family):
                rows = block.client == self.models.client[pair]
                for column in np.flatnonzero(block.labels == label):
                    quantiles[block.run[rows]] = block.quantiles[rows, column]
        return quantiles


@dataclass(frozen=True, kw_only=True)
class View:
    """The evidence of one place on every audit example in every run, at one round.

    It is at a level and a place: (`local`, `owner`), (`local`, `others`) or (`global`, ``). Arrays are (R, Q, m) with Q
    models at that place (1 for owner and global). They are NaN where there is no model: the owner was not in the
    cohort, or the model is not one of the others. `rank` = 1 + smaller + ties/2 among `references` (m,) fresh ones, NaN
    for examples that are not canaries. `round` is None for the summary. A run may leave the owner out as a client.
    There its examples are NaN at every place, since the coin of the example decides nothing.

    `sets` has the outputs of the same models on whole sets of examples (`test`, `population`, and all of `audit`).
    `ranked` has those on the references behind the ranks. `exclusion` is that of the bank. `series` has the evidence of
    the place over all observed rounds, the same in the views of all rounds. `label_counts` are those of the bank.
    `others` is the series of the other clients, where the place is the owner. `signals` has the values of signals, by
    the name of their measure, (R, Q, m) as well; NaN where a signal was not read. `quantities` are those of all signals
    and estimators that give some, for an estimator that declares `reads_quantities`. `initial` (R, m) are the losses of
    the initial model of each run, at every place. It is None where the aggregate of round 0 was not observed.
    """

    round: int | None
    level: Level
    place: str
    audit: AuditSet
    loss: FloatArray
    margin: FloatArray
    correct: FloatArray
    rank: FloatArray
    references: IntArray
    redeals: CoinPermutations
    sets: Mapping[str, SetEvidence] = field(default_factory=dict)
    ranked: RankEvidence | None = None
    exclusion: str = "replace"
    series: Series | None = None
    others: Series | None = None
    label_counts: IntArray | None = None
    quantities: tuple[ExampleValues, ...] = ()
    targets: tuple[ExampleTarget, ...] = ()
    signals: Mapping[str, FloatArray] = field(default_factory=dict)
    initial: FloatArray | None = None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One number about one kind of audit example at one place, with what is needed to compare and to bound it.

    `influence` gives its interval, and that of differences and ratios (`two_way.influence` computes it). `null` is the
    value without memorisation, `n` the number of audit examples, `bounds` its smallest and largest possible value.
    `examples` are the audit examples, and `per_example` (n,) the value of each, with an interval where one is known,
    from `per_example_n` runs. `per_example_p` is the exact one-sided p of no memorisation of each
    (`single_examples.p_of_few`), where kinds have few examples. `p` is the p-value of no memorisation under `redeals`
    deals of the coins (`randomisation`); NaN where it is not computed. With `signed` effects of both signs are summed
    and cancel, so that the value has no retention. With `is_share` the value is a share of cases. Where it is 0 or 1,
    its interval is then Wilson's, with as many trials as there are clusters.
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
    labels: Labels = NO_LABELS
    examples: IntArray | None = None
    per_example: FloatArray | None = None
    per_example_low: FloatArray | None = None
    per_example_high: FloatArray | None = None
    per_example_n: IntArray | None = None
    per_example_p: FloatArray | None = None
    signed: bool = False
    is_share: bool = False


@dataclass(frozen=True, kw_only=True)
class ExampleValues:
    """One quantity of single examples in each run, whose means over in runs and over out runs are estimates.

    Attributes:
        metric: The measure.
        labels: Of its estimates, without those that tell in from out runs.
        values: (R, m), NaN where there is none. No value depends on a coin.
    """

    metric: str
    labels: Labels = NO_LABELS
    values: FloatArray


@dataclass(frozen=True, kw_only=True)
class ExampleTarget:
    """One quantity of single examples from any part of the runs, with which proxies are compared.

    Attributes:
        metric: The measure.
        labels: The labels of its estimates.
        from_runs: The values (m,) from a part of the runs (R,), True for those that count; NaN where there is none.
    """

    metric: str
    labels: Labels = NO_LABELS
    from_runs: Callable[[BoolArray], FloatArray]


@runtime_checkable
class Estimator(Protocol):
    """A pure function of stored evidence. Intervals, differences and retention follow from `Estimate.influence`.

    A class declares the measures that it yields: `measures: ClassVar[tuple[Measure, ...]]`, see
    `fedmem.contracts.measure`. An estimate or reading of a measure that it does not declare fails the run.

    It may declare what `EstimatorDeclaration` lists.
    """

    def estimate(self, view: View) -> Sequence[Estimate]: ...

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        """Readings of single runs, such as a combined p-value, each with its run (None: over all); may be empty."""
        ...


@runtime_checkable
class EpsilonAudit(Protocol):
    """An estimator that bounds epsilon from below, which may raise an alarm against a stated guarantee.

    It declares `bounds_epsilon: ClassVar[bool] = True`. `method` is the way of counting (`one_run` or `over_runs`), and
    `example_kind` the kind of audit example. `level` says which models are read, `run` whose coins are guessed, and
    `alarm` whether a bound above the permitted value is an alarm. `labels_of_rows` are the labels of the rows of this
    audit.
    """

    bounds_epsilon: ClassVar[bool]

    @property
    def method(self) -> str: ...
    @property
    def example_kind(self) -> str: ...
    @property
    def level(self) -> Level: ...
    @property
    def run(self) -> int: ...
    @property
    def delta(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def alarm(self) -> bool: ...
    @property
    def labels_of_rows(self) -> Labels: ...


@dataclass(frozen=True, kw_only=True)
class MembershipScores:
    """The scores of a membership attack for the n examples of one kind in R runs, for ROC curves.

    Attributes:
        kind: the kind of audit example.
        labels: of the rows of this attack, without those of a false positive rate.
        scores: (R, n), higher for members; NaN where there is none.
        is_in: (R, n) whether the example was trained on.
    """

    kind: str
    labels: Labels
    scores: FloatArray
    is_in: BoolArray


@dataclass(frozen=True, kw_only=True)
class EstimatorDeclaration(Needs):
    """The declarations of an estimator, with their defaults.

    Attributes:
        levels: levels whose models it reads; None for all.
        compares_clients: whether it compares runs with and without a client. It then needs `leave_out` and no
            injections, and reads one aggregate for all clients.
        bounds_epsilon: whether it bounds epsilon from below, see `EpsilonAudit`.
        membership_scores: `membership_scores(view)`, the scores of a membership attack kind by kind, from which reports
            draw ROC curves; None where it attacks no membership.
        example_values: `example_values(view)`, quantities of single examples in each run, so that runs can be split
            into halves. None where its values are no means over runs.
        example_targets: `example_targets(view)`, quantities of single examples from any part of the runs, with which
            `agreement` compares proxies. None where it has none.
        needs_even_rounds: Whether it counts events from each observed round to the next. It then needs two observed
            rounds or more after the initial model, evenly spaced.
        needs_every_round: Whether it counts rounds between participations. It then needs every round observed,
            at the levels local and global, and a participation schedule that all runs share.
        gives_margins_alone: Whether an attack in one of its fields is given margins and coins, and nothing else.
        needs_twins: Whether it compares twins, runs with the same coins; it then needs `twins` of 2 or more.
        reads_influence: Whether it reads the influence of audit examples on `targets`. It is refused where no signal
            has any.
        reads_quantities: Whether it reads the quantities of single examples that other estimators and signals give,
            `View.quantities`.
        needs_phase: Whether it compares a phase with the one before; it is refused in a training that follows none.
        needs_relearning: Whether it compares how fast runs learn again what was forgotten. It is refused in a training
            without `relearn`.
        needs_aims: Whether it compares runs by the inclusion of examples that are made against others, such as poison.
            It is refused where no injection `aims_at` another.
        readings_of_places: `readings_of_places(views)`, readings of the summary that compare its places, each with the
            number of the view that it is about. None where every place is judged alone.
    """

    levels: tuple[Level, ...] | None = declare(None, "a tuple of levels")
    compares_clients: bool = declare(False, YES_OR_NO)
    bounds_epsilon: bool = declare(False, YES_OR_NO)
    membership_scores: Callable[[View], Sequence[MembershipScores]] | None = declare(
        None, "a method membership_scores(view)"
    )
    example_values: Callable[[View], Sequence[ExampleValues]] | None = declare(None, "a method example_values(view)")
    example_targets: Callable[[View], Sequence[ExampleTarget]] | None = declare(None, "a method example_targets(view)")
    needs_even_rounds: bool = declare(False, YES_OR_NO)
    needs_every_round: bool = declare(False, YES_OR_NO)
    gives_margins_alone: bool = declare(False, YES_OR_NO)
    needs_twins: bool = declare(False, YES_OR_NO)
    reads_influence: bool = declare(False, YES_OR_NO)
    needs_phase: bool = declare(False, YES_OR_NO)
    needs_relearning: bool = declare(False, YES_OR_NO)
    needs_aims: bool = declare(False, YES_OR_NO)
    reads_quantities: bool = declare(False, YES_OR_NO)
    readings_of_places: Callable[[Sequence[View]], Sequence[tuple[int, Reading]]] | None = declare(
        None, "a method readings_of_places(views)"
    )


def estimator_declaration(estimator: object) -> EstimatorDeclaration:
    """The declarations of an estimator.

    >>> from fedmem.estimators.exposure import Exposure
    >>> estimator_declaration(Exposure()).needs_canaries
    True
    """
    return read_declaration(EstimatorDeclaration, estimator)
