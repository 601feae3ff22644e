"""What a scenario will cost and how precise it can be, counted before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.types import FloatArray, IntArray, Level

if TYPE_CHECKING:
    from fedmem.roster import Roster
    from fedmem.scenario import Scenario
    from fedmem.types import Federation

CLIENTS_LOOKED_AT = 10**8
"""Clients times cohorts that are drawn at most; of a longer training, the first rounds stand for all."""

STORED, HELD = 34, 14
"""Bytes of one row of evidence in memory (17, and again as a table while it is written), and about so many in its file:
floats of trained models hardly compress."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What R runs can say about one kind of audit example.

    `examples` are those that the summary can read: their holder takes part in an observed round. `of_one` is the
    largest standard error of memorisation of one of them, ½ √(1/ins + 1/outs), which is 1/√R where nobody is left out;
    `of_mean` that of their mean, √(Σ of_one²)/m, hence 1/√(R m). `fpr` is the smallest false positive rate of a
    membership attack, 10 / (outs of all runs), NaN with fewer than ten.
    """

    kind: str
    examples: int
    of_one: float
    of_mean: float
    outs: int
    fpr: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a scenario will do.

    `cohort` is the mean number of clients in a round; `trainings`, `steps` and `seen` (examples, each time it is in a
    batch) are over all runs and rounds; `models` those that are looked at, by level; `sets` the examples that each of
    them is asked about; `evidence`, `references` the rows of these files. `memory` and `disk` are bytes by purpose,
    rough. `exact` is False where cohorts are known only while training, or were drawn for the first rounds alone.
    """

    runs: int
    rounds: int
    observed: tuple[int, ...]
    rows: Mapping[str, int]
    generated: int
    cohort: float
    trainings: int
    steps: int
    seen: int
    models: Mapping[Level, int]
    sets: Mapping[str, int]
    evidence: int
    references: int
    memory: Mapping[str, int]
    disk: Mapping[str, int]
    precision: tuple[Precision, ...]
    exact: bool


def plan(scenario: Scenario) -> Plan:
    """Count what a scenario will do; its cohorts are the ones that it will really have.

    Guarantees:

    - nothing is trained, and every draw is from a stream of its own, so that planning changes no result;
    - where `exact`, trainings, steps, rows of evidence and of references are those of the run, unless clients fail.

    Errors: those of building the federation, and of a sampler that cannot draw a cohort.

    >>> from fedmem.scenario import parse_scenario
    >>> text = "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: logistic}}"
    >>> found = plan(parse_scenario(text, overrides=["client={kind: sgd, steps: 5}"]))
    >>> found.trainings, found.steps
    (6, 30)
    """
    from fedmem import federation as federations

    # What is made for the run alone, and so much of it, is not made here.
    lean = scenario.model_copy(update={"references": 1, "initial_weights": "shared"})
    federation = federations.build(lean)
    cohorts = _Cohorts.draw(scenario, federation)
    work = _Work(scenario, federation)
    drawn = [work.of(round, cohorts.present(round)) for round in range(1, cohorts.rounds + 1)]
    trainings, steps, seen = (round(sum(part) * scenario.rounds / cohorts.rounds) for part in zip(*drawn, strict=True))
    models = _models(scenario, cohorts, trainings)
    sets = {
        "audit": len(federation.audit),
        "test": len(federation.test),
        "population": len(federation.population),
    }
    audit = federation.audit
    labels = [
        len(np.unique(audit.examples.targets[audit.kind == references.family])) for references in federation.references
    ]
    evidence, references = (sum(models.values()) * each for each in (sum(sets.values()), sum(labels)))
    looks_ahead = bool(getattr(scenario.sampler, "needs", ()))
    return Plan(
        runs=scenario.runs,
        rounds=scenario.rounds,
        observed=scenario.observed_rounds,
        rows=federation.counts,
        generated=int(np.count_nonzero(audit.examples.ids < 0)),
        cohort=trainings / scenario.runs / scenario.rounds,
        trainings=trainings,
        steps=steps,
        seen=seen,
        models=models,
        sets=sets,
        evidence=evidence,
        references=references,
        memory=_memory(scenario, federation, cohorts, work.rows, evidence, references),
        disk=_disk(scenario, federation, models, evidence),
        precision=tuple(_precision(scenario, federation, cohorts)),
        exact=cohorts.rounds == scenario.rounds and scenario.cohort == "sampler" and not looks_ahead,
    )


@dataclass(frozen=True, kw_only=True)
class _Cohorts:
    """Who takes part in the first `rounds` rounds; one roster for all runs, or one for each."""

    runs: int
    clients: int
    rounds: int
    rosters: Sequence[Roster]

    @staticmethod
    def draw(scenario: Scenario, federation: Federation) -> _Cohorts:
        """From the streams of the scenario, as the engine will draw them."""
        from fedmem.roster import Roster

        alike = scenario.roster == "shared" and federation.audit.client_in is None
        rosters = [Roster(scenario, federation, run) for run in range(1 if alike else scenario.runs)]
        most = max(1, CLIENTS_LOOKED_AT // (len(rosters) * max(1000, scenario.clients)))
        return _Cohorts(
            runs=scenario.runs, clients=scenario.clients, rounds=min(scenario.rounds, most), rosters=rosters
        )

    def present(self, round: int) -> IntArray:
        """(R, N) ones where a client takes part in a round of a run."""
        found = np.zeros((len(self.rosters), self.clients), dtype=np.int64)
        for run, roster in enumerate(self.rosters):
            found[run, list(roster.cohort(round))] = 1
        return np.broadcast_to(found, (self.runs, self.clients))


class _Work:
    """How many trainings, steps and examples a round has."""

    def __init__(self, scenario: Scenario, federation: Federation) -> None:
        self._client = scenario.client
        self._federation = federation
        self._sizes: dict[bytes, IntArray] = {}
        self._work: dict[int, tuple[int, int]] = {}

    def of(self, round: int, present: IntArray) -> tuple[int, int, int]:
        """Over all runs."""
        sizes, counts = np.unique(self._of_clients(round)[present > 0], return_counts=True)
        work = [self._of_one(size) for size in sizes.tolist()]
        steps, seen = (sum(n * one[i] for n, one in zip(counts.tolist(), work, strict=True)) for i in (0, 1))
        return int(counts.sum()), steps, seen

    @property
    def rows(self) -> int:
        """Rows of all clients and runs, for each set of examples that are trained on together."""
        return sum(int(sizes.sum()) for sizes in self._sizes.values())

    def _of_clients(self, round: int) -> IntArray:
        """(R, N) rows."""
        federation = self._federation
        key = federation.audit.active(round).tobytes()
        if key not in self._sizes:
            runs, clients = range(federation.audit.runs), range(federation.num_clients)
            self._sizes[key] = np.array([[len(federation.rows(run, k, round)) for k in clients] for run in runs])
        return self._sizes[key]

    def _of_one(self, rows: int) -> tuple[int, int]:
        """Steps of a client with so many rows, and the examples in their batches."""
        if rows not in self._work:
            batches = self._client.batches(rows, np.random.default_rng(0))
            self._work[rows] = self._client.num_steps(rows), int(np.count_nonzero(batches >= 0))
        return self._work[rows]


def _models(scenario: Scenario, cohorts: _Cohorts, trainings: int) -> dict[Level, int]:
    """How many models are looked at, by level."""
    observed = [round for round in scenario.observed_rounds if round]
    known = [int(cohorts.present(round).sum()) for round in observed if round <= cohorts.rounds]
    rest = (len(observed) - len(known)) * trainings / scenario.rounds
    found: dict[Level, int] = {
        "local": sum(known) + round(rest),
        "global": scenario.runs * len(scenario.observed_rounds),
    }
    return {level: count for level, count in found.items() if level in scenario.observe.levels}


def _memory(
    scenario: Scenario, federation: Federation, cohorts: _Cohorts, rows: int, evidence: int, references: int
) -> dict[str, int]:
    """Bytes at the peak, by purpose, largest first. Python, its libraries and activations of a network come on top."""
    from fedmem.evidence import QUANTILES
    from fedmem.training import STACK_BYTES

    audit, runs = federation.audit, scenario.runs
    floats = sum(part.inputs.nbytes for part in (federation.store, federation.test, federation.population))
    floats += sum(part.inputs[0].nbytes * scenario.references for part in federation.references)
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    local = [round for round in scenario.observed_rounds if 0 < round <= cohorts.rounds]
    largest = max(int(cohorts.present(round).sum()) for round in {1, *local})
    speed = scenario.speed
    alone = speed.engine == "flower" or speed.executor == "one_by_one"
    alone = alone or (speed.executor == "auto" and not scenario.model.stackable)
    stacked = min(1 if alone else max(1, STACK_BYTES["cpu"] // max(1, model)), largest)
    batch = scenario.client.batch_size * int(np.prod(federation.store.inputs.shape[1:])) * 4
    watched = len(local) * ("local" in scenario.observe.levels) > 0
    places = largest if watched and scenario.estimators else 0
    found = {
        "data": floats,
        "lists of rows": 8 * rows,
        # as trained and as sent, and both once more where they are kept to be looked at; the aggregates of all runs
        "models of one round": model * (largest * 2 * (1 + watched) + 3 * runs),
        # parameters before and after, their gradients and what the optimiser holds; batches
        "clients in training": stacked * (6 * model + 2 * batch),
        "evidence": STORED * evidence + references * (4 * QUANTILES + 8),
        # four values of every example at every model of a round, gathered by place and for the summary
        "estimates": 32 * 4 * len(audit) * (places + runs) * bool(scenario.estimators)
        + 8 * scenario.bootstrap * (runs + len(audit)),
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _disk(scenario: Scenario, federation: Federation, models: Mapping[Level, int], evidence: int) -> dict[str, int]:
    """Bytes of the files of a run, by file, largest first; readings and pictures of probes are not among them."""
    from fedmem.evidence import QUANTILES

    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    audit, ranked = federation.audit, 0.0
    for family in federation.references:
        own = audit.kind == family.family
        pairs = np.unique(np.stack([audit.holder[own], audit.examples.targets[own]]), axis=1).shape[1]
        # a client's model has the quantiles of the labels that it holds, an aggregate those of all
        ranked += models.get("local", 0) * pairs / scenario.clients
        ranked += models.get("global", 0) * len(np.unique(audit.examples.targets[own]))
    found = {
        "evidence": HELD * evidence,
        "references": round(3.2 * QUANTILES * ranked),
        "audit": audit.examples.inputs.nbytes,
        "params": model * scenario.runs * scenario.save.params,
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _precision(scenario: Scenario, federation: Federation, cohorts: _Cohorts) -> list[Precision]:
    """Kind by kind, from the coins as they fell."""
    from fedmem.statistics import smallest_fpr

    audit = federation.audit
    counted = audit.holder_in
    ins, outs = (audit.is_in & counted).sum(0), (~audit.is_in & counted).sum(0)
    read = _read(scenario, federation, cohorts) & (ins > 0) & (outs > 0)
    found = []
    for kind in audit.kinds:
        chosen = np.flatnonzero(read & (audit.kind == kind))
        errors: FloatArray = 0.5 * np.sqrt(1 / ins[chosen] + 1 / outs[chosen])
        total = int(outs[chosen].sum())
        found.append(
            Precision(
                kind=kind,
                examples=len(chosen),
                of_one=float(errors.max()) if len(chosen) else math.nan,
                of_mean=float(np.sqrt(np.square(errors).sum()) / len(chosen)) if len(chosen) else math.nan,
                outs=total,
                fpr=smallest_fpr(total),
            )
        )
    return found


def _read(scenario: Scenario, federation: Federation, cohorts: _Cohorts) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(m,) which examples the summary reads: local and global are pairs, so their holder must be seen."""
    audit = federation.audit
    if scenario.roster == "own" or "local" not in scenario.observe.levels:
        return np.ones(len(audit), dtype=bool)
    seen = np.zeros(scenario.clients, dtype=bool)
    for round in scenario.observed_rounds:
        if 0 < round <= cohorts.rounds:
            seen |= cohorts.present(round).any(0)
    return seen[audit.holder] | (audit.holder < 0)
