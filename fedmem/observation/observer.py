"""Turns transitions into evidence and readings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.events import Emit, ReadingsTaken, silent
from fedmem.contracts.evidence import Evidence, ReferenceEvidence, SignalEvidence, Transition
from fedmem.contracts.families import sources
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level, Measurement
from fedmem.contracts.needs import declared_by
from fedmem.contracts.probe import Probe
from fedmem.contracts.strategy import strategy_declaration
from fedmem.contracts.validation_of_measures import readings_of
from fedmem.guards.guarding import Guard
from fedmem.observation.evidence import accuracy, evidence_of, rank_of
from fedmem.observation.personal_layers import PersonalLayers
from fedmem.observation.probe_context import _Context
from fedmem.observation.signals import SignalReader
from fedmem.privacy.secure_aggregation import label_size, sums_of
from fedmem.training.executor import Executor
from fedmem.training.stacked import LocalWork

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


KEPT_LOGITS = 1 << 26
"""Bytes of logits on audit examples that are kept for signals, at most; larger ones are computed again if needed."""


class _Observer:
    """Collects the transitions of all runs; when a round is complete, turns them into evidence and readings."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        work: LocalWork,
        runs: tuple[int, ...],
        emit: Emit = silent,
        save: Callable[[Sequence[Transition]], object] | None = None,
    ) -> None:
        self._scenario = scenario
        self._federation = federation
        self._executor = executor
        self._runs = runs
        self._work = work
        self._emit = emit
        self._save = save
        self._rounds = frozenset(scenario.observed_rounds)
        self._personal_layers = PersonalLayers.of(scenario.client, federation)
        self._pending: dict[tuple[int, Level], list[Transition]] = {}
        self._sources = sources(scenario.probes)
        self.arrays: dict[str, NDArray[Any]] = {}
        self._contexts = [
            _Context(scenario, federation, executor, work, source, self.arrays) for source in self._sources
        ]
        self.evidence: list[Evidence] = []
        self.references: list[ReferenceEvidence] = []
        self.signals: list[SignalEvidence] = []
        self._signal_reader = SignalReader(scenario, federation, executor)
        self.measurements: list[Measurement] = []
        self._utility: tuple[int, float | None, float | None] | None = None
        self.seconds = 0.0

    def observes_round(self, round_number: int) -> bool:
        """Only the observed rounds are copied, unless clients keep layers to themselves, which are read later."""
        return round_number in self._rounds or self._personal_layers is not None

    def see(self, transitions: Sequence[Transition]) -> None:
        """Keep them until the global transitions of all runs have arrived."""
        if not transitions:
            return
        round_number, level = transitions[0].round, transitions[0].level
        if self._personal_layers is not None and level == "local":
            self._personal_layers.learn(transitions)
        if round_number not in self._rounds:
            self._work.forget(round_number)
            return
        self._pending.setdefault((round_number, level), []).extend(transitions)
        if level == "global" and len(self._pending[round_number, level]) == len(self._runs):
            started = time.perf_counter()
            places: tuple[Level, ...] = ("local", "global")
            local, everywhere = (
                sorted(self._pending.pop((round_number, place), []), key=lambda t: (t.run, t.client))
                for place in places
            )
            if self._personal_layers is not None:
                everywhere = self._personal_layers.complete_aggregates(everywhere)
            for context in self._contexts:
                context.local = local
            for group, others in ((local, everywhere), (self._sums(local), ()), (everywhere, local)):
                if group and group[0].level in self._scenario.observe.levels:
                    self._read_transitions(group, others)
            self._work.forget(round_number)
            self.seconds += time.perf_counter() - started

    def _sums(self, local: Sequence[Transition]) -> list[Transition]:
        """The sums that secure aggregation would show of these clients, where sums are observed."""
        scenario = self._scenario
        weighting = strategy_declaration(scenario.strategy).weighting
        return sums_of(local, scenario.observe.sums, weighting, scenario.training_seed, self._federation.audit)

    def _read_transitions(self, transitions: list[Transition], others: Sequence[Transition]) -> None:
        """Evidence for estimators, which read clients and the aggregate, then the readings of probes.

        `others` are the models of the other level, which signals may read.
        """
        if transitions[0].level != "sum":
            # the same logits serve evidence and signals, unless they are too large to keep
            is_due = self._signal_reader.is_due(transitions[0])
            logits: list[FloatArray] | None = [] if is_due and self._logit_bytes(transitions) <= KEPT_LOGITS else None
            self._gather(transitions, logits)
            self.signals += self._signal_reader.read(transitions, logits, others)
            if self._save is not None:
                self._save(transitions)
        for probe, source, context in zip(self._scenario.probes, self._sources, self._contexts, strict=True):
            if transitions[0].level in probe.levels and self._is_due(probe, transitions[0].round):
                self._probe(probe, source, context, transitions)

    def _logit_bytes(self, transitions: Sequence[Transition]) -> int:
        return 8 * len(transitions) * self._federation.audit.examples.targets.size * self._federation.num_classes

    def utility_of(self, round_number: int) -> tuple[float | None, float | None]:
        """Accuracy of the global models on the test set after a round (from 1), or their loss if they have no accuracy.

        None where they are not observed.
        """
        return self._utility[1:] if self._utility is not None and self._utility[0] == round_number else (None, None)

    def _gather(self, transitions: list[Transition], logits: list[FloatArray] | None) -> None:
        first, model = transitions[0], self._federation.model
        with Guard("model", model, "forward", round=first.round, level=first.level):
            self._ask(transitions, logits)

    def _ask(self, transitions: list[Transition], logits: list[FloatArray] | None) -> None:
        """The losses of the models on every set of examples, and on references; keeps the logits on audit examples."""
        federation = self._federation
        models = [transition.kept for transition in transitions]
        keep = None if logits is None else logits.append
        audit = evidence_of(models, transitions, "audit", federation.audit.examples, self._executor, keep=keep)
        self.evidence.append(audit)
        observe = self._scenario.observe
        if len(federation.test) and observe.test.is_read_at(audit.level):
            examples, rows, precision = federation.test, federation.test_rows, observe.test.precision
            test = evidence_of(models, transitions, "test", examples, self._executor, rows=rows, precision=precision)
            self.evidence.append(test)
            if audit.level == "global":
                share = accuracy(test)
                loss = float(test.loss.mean()) if math.isnan(share) else None
                self._utility = audit.round, None if math.isnan(share) else share, loss
        if len(federation.population) and observe.population.is_read_at(audit.level):
            self.evidence.append(evidence_of(models, transitions, "population", federation.population, self._executor))
        for references in federation.references:
            self.references.append(rank_of(models, transitions, references, federation.audit, audit, self._executor))

    def _is_due(self, probe: Probe, round_number: int) -> bool:
        return probe.every is None or round_number % probe.every == 0 or round_number == self._scenario.rounds

    def _probe(self, probe: Probe, source: str, context: _Context, transitions: list[Transition]) -> None:
        first = transitions[0]
        with Guard("probe", probe, "observe", whole=True, round=first.round, level=first.level) as guard:
            readings = readings_of(guard, probe.observe(transitions, context), transitions, declared_by(probe))
        measurements = tuple(
            Measurement(
                run=transition.run,
                round=first.round,
                level=first.level,
                client=transition.client,
                source=source,
                reading=label_size(reading, transition),
            )
            for transition, reading in readings
        )
        self.measurements += measurements
        if measurements:
            self._emit(ReadingsTaken(measurements=measurements))
