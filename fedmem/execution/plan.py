"""The cost and the precision of a scenario, computed before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.measurement import Level
from fedmem.contracts.sampler import sampler_declaration
from fedmem.contracts.signal import SignalDeclaration, signal_declaration, stored_names
from fedmem.execution import disk_plan, memory_budget, memory_plan, model_space
from fedmem.execution.memory_plan import MemoryLimits
from fedmem.execution.replay_plan import count_replays
from fedmem.execution.unlearning_plan import UnlearningWork, count_unlearning
from fedmem.federation.roster import Cohorts

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario

OF_SET_SIGNAL = 3.65
"""The same for values on other sets than the audit set, which are float32.

Equal values take less, and the opposite logits of two classes down to half of that.
"""

_OF_PIECE, _OF_BLOCK, _OF_FILE = 2500, 190, 1100
"""Further bytes of that file: of each round and level, of each quantity or class in it, and of the file itself.

They were fitted to files of 30 to 1,000 rows, 3 to 30 classes and 4 to 64 models of a round.
"""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision of R runs about one kind of audit example.

    `examples` are those that the summary can read: their owner participates in an observed round. `of_one` is the
    largest standard error of memorisation of one of them, ½ √(1/ins + 1/outs). It is 1/√R where no client is left out.
    `of_mean` is the standard error of their mean, √(Σ of_one²)/m, hence 1/√(R m). `draws` counts examples that are in
    or out together once. Their errors may be equal, so that in `of_mean` they are added before they are squared. `fpr`
    is the smallest false positive rate of a membership attack, 10 / (outs of all runs). It is NaN with fewer than ten,
    and where examples are in or out together.
    """

    kind: str
    examples: int
    draws: int
    of_one: float
    of_mean: float
    outs: int
    fpr: float


@dataclass(frozen=True, kw_only=True)
class SignalWork:
    """The work of signals in all runs.

    `values` are read on audit examples, and `set_values` on other sets. Of the latter, `repeated` are equal to others:
    those of initial weights that runs share. Their file has a piece for each of `set_pieces` rounds and levels. In
    these are `set_blocks` quantities or classes. `passes` are the forward passes of one example that they cost, about;
    a backward pass counts as two.
    """

    values: int
    set_values: int
    repeated: int
    set_pieces: int
    set_blocks: int
    passes: int

    @property
    def set_bytes(self) -> int:
        """The bytes of the values on other sets than the audit set, about."""
        pieces = _OF_PIECE * self.set_pieces + _OF_BLOCK * self.set_blocks + _OF_FILE
        return round(OF_SET_SIGNAL * (self.set_values - self.repeated) + pieces) if self.set_values else 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a scenario.

    `pilots` is 1 where one more run picks the cohorts, else 0. `cohort` is the mean number of clients in a round.
    `trainings`, `steps` and `examples` are over all rounds and all runs, including a pilot. An example counts each time
    it is in a batch. `steps_each` are the fewest and the most steps of one training. `models` are the models that are
    looked at, and `sets` the examples that each of them is asked about, both by level. `evidence` and `references` are
    the rows of these files. `signals` is the work of signals, and `replays` the local trainings that probes repeat, at
    most. `saved` are the models that are stored. `unlearning` is the work of the unlearner of a phase.

    `memory` are bytes by purpose in each phase, roughly. `room` is how training is cut, and `unlimited` how it would be
    without a budget. `disk` are bytes by file, see `disk_plan`. `exact` is False where cohorts are known only while
    training, or were drawn for the first rounds or runs alone.
    """

    runs: int
    twins: int
    pilots: int
    rounds: int
    observed: tuple[int, ...]
    rows: Mapping[str, int]
    generated: int
    cohort: float
    trainings: int
    steps: int
    steps_each: tuple[int, int]
    examples: int
    models: Mapping[Level, int]
    sets: Mapping[Level, Mapping[str, int]]
    evidence: int
    references: int
    signals: SignalWork
    replays: int
    unlearning: UnlearningWork
    saved: int
    memory: Mapping[str, Mapping[str, int]]
    room: MemoryLimits
    unlimited: MemoryLimits
    disk: Mapping[str, int]
    precision: tuple[Precision, ...]
    exact: bool

    @property
    def moment(self) -> str:
        """The phase at whose peak most memory is taken."""
        return memory_budget.largest_phase(self.memory)


RUNS_LOOKED_AT = 512
"""The most runs whose coins, replacement rows and cohorts are drawn for a plan; counts of more runs are scaled."""


def minimal_scenario(scenario: Scenario) -> Scenario:
    """The same without what is made for the run alone, and so much of it: enough to plan with."""
    runs = min(scenario.runs, RUNS_LOOKED_AT)
    twins = scenario.twins if runs == scenario.runs else 1
    weights = "shared" if scenario.initial_weights == "per_run" else scenario.initial_weights
    return scenario.model_copy(update={"references": 1, "initial_weights": weights, "runs": runs, "twins": twins})


def plan(scenario: Scenario, federation: Federation | None = None) -> Plan:
    """Count what a scenario will do; its cohorts are the ones that it will really have.

    `federation` is that of `minimal_scenario(scenario)`, where it is there already.

    Guarantees:

    - nothing is trained, and every draw is from a stream of its own, so that planning changes no result;
    - where `exact`, trainings, steps, rows of evidence and of references are those of the run, unless clients fail.

    Errors: those of building the federation, of a sampler that cannot draw a cohort, and of a budget that is too small.

    >>> from fedmem.scenario.loading import parse_scenario
    >>> text = "{runs: 1, rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: logistic}}"
    >>> found = plan(parse_scenario(text, overrides=["client={kind: sgd, steps: 5}"]))
    >>> found.trainings, found.steps
    (6, 30)
    """
    from fedmem.federation import build as federations

    if federation is None:
        federation = federations.build(minimal_scenario(scenario))
    some = scenario.model_copy(update={"runs": min(scenario.runs, federation.audit.runs)})
    times = scenario.runs / some.runs
    cohorts = Cohorts.draw(some, federation)
    needs = memory_plan.needs_of(scenario, federation, cohorts.largest_cohort)
    # before batches are drawn: they may be too large for that
    room = memory_budget.fit_to_budget(scenario, needs)
    work = _Work(scenario, federation, cohorts)
    work_by_round = [work.of(round_number) for round_number in range(1, cohorts.rounds + 1)]
    counted = [round(sum(part) * scenario.rounds / cohorts.rounds) for part in zip(*work_by_round, strict=True)]
    trainings, steps, num_examples = (round(count * times) for count in counted)
    models = {level: round(count * times) for level, count in _models(some, cohorts, counted[0]).items()}
    sets = {level: sets_at(scenario, federation, level) for level in models}
    audit = federation.audit
    labels = [
        len(np.unique(audit.examples.labels[audit.kind == references.family])) for references in federation.references
    ]
    signals = signal_work(scenario, some, federation, cohorts, counted[0], times)
    evidence = sum(count * sum(sets[level].values()) for level, count in models.items())
    references = sum(models.values()) * sum(labels)
    unlearning = count_unlearning(scenario, federation, times)
    evidence += unlearning.evidence
    saved = model_space.count_saved(scenario, federation, cohorts)
    pilots = int(scenario.has_pilot)
    looks_ahead = bool(sampler_declaration(scenario.sampler).needs)
    return Plan(
        runs=scenario.runs,
        twins=scenario.twins,
        pilots=pilots,
        rounds=scenario.rounds,
        observed=scenario.observed_rounds,
        rows=federation.counts,
        generated=int(np.count_nonzero(audit.examples.ids < 0)),
        cohort=trainings / scenario.runs / scenario.rounds,
        trainings=trainings + pilots * trainings // scenario.runs,
        steps=steps + pilots * steps // scenario.runs,
        steps_each=work.steps_each,
        examples=num_examples + pilots * num_examples // scenario.runs,
        models=models,
        sets=sets,
        evidence=evidence,
        references=references,
        signals=signals,
        replays=count_replays(some, federation, cohorts, times),
        unlearning=unlearning,
        saved=saved,
        memory=memory_plan.phases(needs, room),
        room=room,
        unlimited=memory_budget.fit_to_budget(
            scenario.model_copy(update={"speed": scenario.speed.model_copy(update={"memory": None})}), needs
        ),
        disk=disk_plan.bytes_by_file(scenario, federation, models, sets, saved, signals.set_bytes),
        precision=tuple(_precision(scenario, federation, cohorts, times)),
        exact=cohorts.rounds == scenario.rounds
        and some.runs == scenario.runs
        and scenario.cohort_by == "sampler"
        and not looks_ahead,
    )


class _Work:
    """How many trainings, steps and examples a round has."""

    def __init__(self, scenario: Scenario, federation: Federation, cohorts: Cohorts) -> None:
        self._client = scenario.client
        self._federation = federation
        self._cohorts = cohorts
        self._work: dict[int, tuple[int, int]] = {}

    def of(self, round_number: int) -> tuple[int, int, int]:
        """Over all runs."""
        rosters, clients = self._cohorts.participants(round_number)
        each = self._cohorts.runs_per_roster
        # A roster may stand for all runs, but their clients have other numbers of rows where outs are missing.
        runs = np.tile(rosters, each) + np.repeat(np.arange(each), len(rosters))
        all_sizes = self._federation.sizes_of(runs, np.tile(clients, each), round_number)
        sizes, counts = np.unique(all_sizes, return_counts=True)
        work = [self._of_one(size) for size in sizes.tolist()]
        steps, num_examples = (
            sum(n * amounts[i] for n, amounts in zip(counts.tolist(), work, strict=True)) for i in (0, 1)
        )
        return int(counts.sum()), steps, num_examples

    @property
    def steps_each(self) -> tuple[int, int]:
        """The fewest and the most steps of one training, among the rounds that were counted."""
        steps = [of_one for of_one, _ in self._work.values()] or [0]
        return min(steps), max(steps)

    def _of_one(self, rows: int) -> tuple[int, int]:
        """Steps of a client with so many rows, and the examples in their batches."""
        if rows not in self._work:
            batches = self._client.batches(rows, np.random.default_rng(0))
            self._work[rows] = self._client.num_steps(rows), int(np.count_nonzero(batches >= 0))
        return self._work[rows]


def _models(scenario: Scenario, cohorts: Cohorts, trainings: int) -> dict[Level, int]:
    """How many models are looked at, by level."""
    observed = [round_number for round_number in scenario.observed_rounds if round_number]
    counts = [cohorts.count(round_number) for round_number in observed if round_number <= cohorts.rounds]
    rest = (len(observed) - len(counts)) * trainings / scenario.rounds
    num_models: dict[Level, int] = {
        "local": sum(counts) + round(rest),
        "global": scenario.runs * len(scenario.observed_rounds),
    }
    return {level: count for level, count in num_models.items() if level in scenario.observe.levels}


def sets_at(scenario: Scenario, federation: Federation, level: Level) -> dict[str, int]:
    """The number of examples of each set that models of a level are evaluated on."""
    observe = scenario.observe
    return {
        "audit": len(federation.audit),
        "test": len(federation.test) * observe.test.is_read_at(level),
        "population": len(federation.population) * observe.population.is_read_at(level),
    }


def signal_work(
    scenario: Scenario, some: Scenario, federation: Federation, cohorts: Cohorts, trainings: int, times: float
) -> SignalWork:
    """The work of signals in all runs, which are so many `times` as many as in `some`.

    `some` is the scenario with the runs whose cohorts were drawn, with so many `trainings`.
    """
    from fedmem.observation.signals import count_examples

    values, passes, blocks, repeated = {True: 0.0, False: 0.0}, 0.0, 0, 0
    pieces: set[tuple[int, Level]] = set()
    for signal in scenario.signals:
        declared = signal_declaration(signal)
        due = [r for r in scenario.observed_rounds if signal.every is None or r % signal.every == 0]
        levels = tuple(level for level in signal.levels if level in scenario.observe.levels)
        observe = scenario.observe.model_copy(update={"every": None, "rounds": tuple(due), "levels": levels})
        models = _models(some.model_copy(update={"observe": observe}), cohorts, trainings)
        is_audit, examples = declared.set == "audit", count_examples(federation, declared)
        names = len(stored_names(signal, federation))
        values[is_audit] += names * examples * sum(models.values())
        if not is_audit:
            # nobody has trained before round 1
            read = {(number, level) for number in due for level in levels if number or level == "global"}
            pieces |= read
            blocks += names * len(read)
            if (0, "global") in read and scenario.initial_weights == "shared" and scenario.after is None:
                repeated += names * examples * (scenario.runs - 1)
        # each audit example has one owner, which is one of all clients
        sharing = scenario.clients if declared.owners_only and is_audit else 1
        readings = models.get("global", 0) + models.get("local", 0) / sharing
        if declared.passes_in is not None:
            each, others = declared.passes_in(federation)
            passes += each * examples * readings + others * sum(models.values())
            continue
        passes += declared.passes * examples * readings
        for level, count in models.items():
            passes += _other_rows(declared, federation, level) * count
    return SignalWork(
        values=round(values[True] * times),
        set_values=round(values[False] * times),
        repeated=repeated,
        set_pieces=len(pieces),
        set_blocks=blocks,
        passes=round(passes * times),
    )


def _other_rows(declared: SignalDeclaration, federation: Federation, level: Level) -> float:
    """How many rows besides examples a signal reads at a model of this level, about."""
    rows = float(federation.base_sizes.mean() if level == "local" else federation.base_sizes.sum())
    return float(min(declared.model_rows, len(federation.population) if declared.needs_population else rows))


def _precision(scenario: Scenario, federation: Federation, cohorts: Cohorts, times: float) -> list[Precision]:
    """Kind by kind, from the coins as they fell in the runs looked at; there are `times` as many."""
    from fedmem.estimation.roc import smallest_fpr

    audit = federation.audit
    counted = audit.owner_in
    ins, outs = (audit.is_in & counted).sum(0) * times, (~audit.is_in & counted).sum(0) * times
    read = _is_summarised(scenario, federation, cohorts) & (ins > 0) & (outs > 0)
    precisions = []
    for kind in audit.kinds:
        rows = np.flatnonzero(read & (audit.kind == kind))
        # twins are no further trials
        errors: FloatArray = 0.5 * np.sqrt(scenario.twins * (1 / ins[rows] + 1 / outs[rows]))
        total = round(float(outs[rows].sum()))
        of_draws = np.bincount(audit.coin_groups[rows], weights=errors)
        precisions.append(
            Precision(
                kind=kind,
                examples=len(rows),
                draws=audit.num_coin_groups(rows),
                of_one=float(errors.max()) if len(rows) else math.nan,
                of_mean=float(np.sqrt(np.square(of_draws).sum()) / len(rows)) if len(rows) else math.nan,
                outs=total,
                fpr=math.nan if audit.shares_coins(audit.kind == kind) else smallest_fpr(total),
            )
        )
    return precisions


def _is_summarised(
    scenario: Scenario, federation: Federation, cohorts: Cohorts
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(m,) which examples the summary reads: local and global are pairs, so their owner must be observed."""
    audit = federation.audit
    if scenario.roster == "per_run" or "local" not in scenario.observe.levels:
        return np.ones(len(audit), dtype=bool)
    is_read = np.zeros(scenario.clients, dtype=bool)
    for round_number in scenario.observed_rounds:
        if 0 < round_number <= cohorts.rounds:
            is_read[cohorts.participants(round_number)[1]] = True
    return is_read[audit.owner] | (audit.owner < 0)
