"""The R runs of a scenario: trained together, watched at every observed round, left behind as evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fedmem.contracts.client import ClientAlgorithm
from fedmem.contracts.evidence import Bank, Evidence, Lost, ReferenceEvidence, Simulated, Transition
from fedmem.contracts.families import sources
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Level, Measurement
from fedmem.contracts.probe import Probe
from fedmem.contracts.sampler import Pilot
from fedmem.contracts.strategy import _weighting
from fedmem.contracts.types import FloatArray, IntArray, Params
from fedmem.contracts.validation import readings_of
from fedmem.engines.lockstep import Finished, Lockstep
from fedmem.execution.auto import device_of, is_stacked, server_of, workers_of
from fedmem.execution.join_shards import join
from fedmem.execution.memory_plan import cut_of
from fedmem.execution.pilot import follow
from fedmem.guards.guarding import Guard
from fedmem.observation.evidence import accuracy, evidence_of, rank_of
from fedmem.observation.personal_layers import Holders
from fedmem.privacy.amplification import canaries_of
from fedmem.privacy.mechanisms import adds_noise
from fedmem.privacy.secure_aggregation import labelled, sums_of
from fedmem.processes import hold_on_to_memory, lend
from fedmem.seeding import stream
from fedmem.training.client_work import pick
from fedmem.training.defended_updates import Outgoing
from fedmem.training.stacked import Executor, LocalWork, OneByOne, Stacked
from fedmem.training.worker_pool import Spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedmem.scenario.scenario import Scenario


class Progress(Protocol):
    """What a run tells while it goes on."""

    def start(self, rounds: int, runs: int) -> None: ...

    def update(self, round: int, accuracy: float | None) -> None: ...

    def stage(self, text: str) -> None: ...


def simulate(
    scenario: Scenario,
    federation: Federation,
    *,
    progress: Progress | None = None,
    runs: Sequence[int] | None = None,
    watch: bool = True,
    executor: Executor | None = None,
) -> Simulated:
    """Train the runs of a scenario (all of them, unless `runs` names some), gather their evidence and sum it up.

    With `watch=False` nothing is observed; the final parameters are the same to the last bit. For `executor` see
    `gather`.
    """
    gathered = gather(scenario, federation, progress=progress, runs=runs, watch=watch, executor=executor)
    return join([gathered], scenario.probes if watch else (), scenario.seed)


def gather(
    scenario: Scenario,
    federation: Federation,
    *,
    progress: Progress | None = None,
    runs: Sequence[int] | None = None,
    watch: bool = True,
    lost: Lost | None = None,
    workers: int | None = None,
    pilot: Pilot | None = None,
    executor: Executor | None = None,
) -> Simulated:
    """The same without summaries, which need all runs of the bank.

    What is `lost` is known to fail in another run and dropped in these: with it the runs are what they would be if all
    had been trained together. `workers` is how many processes may train, by default as many as the scenario says.
    `pilot` is that of the scenario, if it has one; by default it is trained here. `executor` trains and looks at
    models, and is closed by whoever made it; by default one is made here.
    """
    pilot = pilot or pilot_of(scenario, federation, progress, workers, executor)
    started = time.perf_counter()
    hold_on_to_memory()
    chosen = tuple(range(scenario.runs)) if runs is None else tuple(runs)
    with _threads(scenario.speed.threads), _executor(scenario, federation, workers, executor) as executor:
        waited = executor.waited
        work = LocalWork(federation, scenario.client, scenario.seed)
        observer = _Observer(scenario, federation, executor, work, chosen)
        if progress is not None:
            progress.start(scenario.rounds, len(chosen))

        def on_round(round: int) -> None:
            if progress is not None:
                progress.update(round, observer.accuracy)

        engine = _engine(scenario, federation, executor, work, observer if watch else None, on_round, pilot)
        server = server_of(scenario)
        # its workers rest while models are looked at
        with lend(executor.workers):
            finished = engine.train(chosen, server, lost or {})
        total = time.perf_counter() - started - (executor.waited - waited)
    return Simulated(
        bank=Bank(
            audit=federation.audit,
            evidence=tuple(observer.evidence),
            references=tuple(observer.references),
            participation=finished.participation,
            seed=scenario.seed,
            roster=scenario.roster,
            exclusion=scenario.exclusion,
            targets={"test": federation.test.labels},
        ),
        measurements=tuple(observer.measurements),
        reconstructions=observer.kept,
        params=finished.params,
        executor=executor.name,
        server=server,
        workers=executor.workers,
        device=executor.device,
        seconds={"watching": observer.seconds, "training": total - observer.seconds},
        lost=finished.lost,
        untraced=executor.untraced,
        pilot=pilot,
    )


def pilot_of(
    scenario: Scenario,
    federation: Federation,
    progress: Progress | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
) -> Pilot | None:
    """Train the run by which the cohorts of all others are picked; None where a scenario has none.

    Without an `executor`, one is made and closed here.
    """
    if not scenario.has_pilot:
        return None
    hold_on_to_memory()
    if progress is not None:
        progress.stage("training the pilot, a run more, which picks the cohorts of all others")
        progress.start(scenario.rounds, 1)
    with _threads(scenario.speed.threads), _executor(scenario, federation, workers, executor) as executor:
        return follow(
            scenario,
            federation,
            executor,
            lambda round: None if progress is None else progress.update(round, None),
        )


class _Engine(Protocol):
    """Trains runs from the first round to the last."""

    def train(self, runs: Sequence[int], server: str, lost: Lost) -> Finished: ...


def _engine(
    scenario: Scenario,
    federation: Federation,
    executor: Executor,
    work: LocalWork,
    observer: _Observer | None,
    on_round: Callable[[int], None],
    pilot: Pilot | None,
) -> _Engine:
    if scenario.speed.engine == "flower":
        from fedmem.engines.flower import FlowerRuntime

        return FlowerRuntime(scenario, federation, work, observer, on_round, pilot)
    return Lockstep(scenario, federation, executor, work, observer, on_round, pilot)


def executor_of(scenario: Scenario, federation: Federation, workers: int | None = None) -> Executor:
    """What trains the clients of a scenario and looks at models.

    What is not stacked is spread over `workers` processes, by default as many as the scenario says.
    """
    device, room = device_of(scenario), cut_of(scenario, federation)
    given = federation.model, scenario.client, federation.store
    stacks = room.stack_bytes if device == "cpu" or scenario.speed.memory else 0
    cut: Mapping[str, Any] = {
        "outgoing": Outgoing(scenario.defences, scenario.seed, guaranteed=adds_noise(scenario.strategy)),
        "seed": scenario.seed,
        "seconds": scenario.speed.seconds_per_client,
        "device": device,
        "stack_bytes": stacks,
        "forward_rows": room.forward_rows,
    }
    if is_stacked(scenario):
        return Stacked(*given, **cut)
    count = workers_of(scenario) if workers is None else workers
    if count > 1:
        return Spread(*given, workers=count, threads=scenario.speed.threads, **cut)
    return OneByOne(*given, **cut)


@contextmanager
def _executor(
    scenario: Scenario, federation: Federation, workers: int | None, given: Executor | None
) -> Iterator[Executor]:
    """The one that is given, or one that is made and closed here."""
    executor = given or executor_of(scenario, federation, workers)
    try:
        yield executor
    finally:
        if given is None:
            executor.close()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Context:
    """What probes may ask for: see `components.Context`."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        executor: Executor,
        work: LocalWork,
        source: str,
        kept: dict[str, NDArray[Any]],
    ) -> None:
        self.federation = federation
        self.client: ClientAlgorithm = scenario.client
        self.strategy = scenario.strategy
        self.local: Sequence[Transition] = ()
        self._defended = bool(scenario.defences)
        self.seed = scenario.seed
        self.observed_rounds = scenario.observed_rounds
        self.canaries = canaries_of(scenario)
        self.weighting = _weighting(scenario)
        self._executor = executor
        self._work = work
        self._source = source
        self._kept = kept

    def stream(
        self, purpose: str, *, run: int | None = None, round: int | None = None, client: int | None = None
    ) -> np.random.Generator:
        """A named stream that belongs to probes alone."""
        return stream(self.seed, f"probe {purpose}", run=run, round=round, client=client)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits."""
        return self._executor.logits(models, inputs)

    def first_step(self, transition: Transition) -> tuple[Params, IntArray]:
        """Repeat the client's first local step: same rows, same order, same numbers."""
        work = self._work.kept(transition.run, transition.round, transition.client).first_steps(1)
        given = self.federation.model, self.client, self.federation.store
        reference = OneByOne(*given, seed=self.seed)
        (outcome,) = reference.train_all(work).outcomes()
        return outcome.sent, work.batches[work.batches >= 0]

    def steps(self, transition: Transition, count: int) -> Params:
        """The model after the client's first steps, trained as it was, but for defences."""
        work = self._work.kept(transition.run, transition.round, transition.client).first_steps(count)
        given = self.federation.model, self.client, self.federation.store
        executor = OneByOne(*given, seed=self.seed) if self._defended else self._executor
        (outcome,) = executor.train_all(work).outcomes()
        return outcome.sent

    def senders(self, transition: Transition) -> Sequence[Transition]:
        """Those of the same run and round whose model was aggregated."""
        there = set(transition.clients)
        return [one for one in self.local if one.run == transition.run and one.client in there]

    def rows(self, run: int, client: int, round: int) -> IntArray:
        """The rows that a client trains on in this round."""
        return self.federation.rows(run, client, round)

    def used(self, run: int, client: int, round: int) -> IntArray:
        """Those of them that are in one of its batches."""
        return self._work.used(run, client, round)

    def given(self, transition: Transition) -> tuple[IntArray, Params]:
        """The batches and the offer of a client's work."""
        work = self._work.kept(transition.run, transition.round, transition.client)
        return work.batches[0, : work.steps[0]], pick(work.offer, 0)

    def keep(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Arrays for `reconstructions.npz`, under the source of the probe."""
        self._kept.update({f"{self._source}/{name}/{key}": value for key, value in arrays.items()})


class _Observer:
    """Collects the transitions of all runs; when a round is complete, turns them into evidence and readings."""

    def __init__(
        self, scenario: Scenario, federation: Federation, executor: Executor, work: LocalWork, runs: tuple[int, ...]
    ) -> None:
        self._scenario = scenario
        self._federation = federation
        self._executor = executor
        self._runs = runs
        self._work = work
        self._rounds = frozenset(scenario.observed_rounds)
        self._holders = Holders.of(scenario.client, federation)
        self._pending: dict[tuple[int, Level], list[Transition]] = {}
        self._sources = sources(scenario.probes)
        self.kept: dict[str, NDArray[Any]] = {}
        self._contexts = [_Context(scenario, federation, executor, work, source, self.kept) for source in self._sources]
        self.evidence: list[Evidence] = []
        self.references: list[ReferenceEvidence] = []
        self.measurements: list[Measurement] = []
        self.accuracy: float | None = None
        self.seconds = 0.0

    def wants(self, round: int) -> bool:
        """Only the observed rounds are copied, unless clients keep layers to themselves, which are read later."""
        return round in self._rounds or self._holders is not None

    def see(self, transitions: Sequence[Transition]) -> None:
        """Keep them until the global transitions of all runs have arrived."""
        if not transitions:
            return
        round, level = transitions[0].round, transitions[0].level
        if self._holders is not None and level == "local":
            self._holders.learn(transitions)
        if round not in self._rounds:
            self._work.forget(round)
            return
        self._pending.setdefault((round, level), []).extend(transitions)
        if level == "global" and len(self._pending[round, level]) == len(self._runs):
            started = time.perf_counter()
            places: tuple[Level, ...] = ("local", "global")
            local, everywhere = (
                sorted(self._pending.pop((round, place), []), key=lambda t: (t.run, t.client)) for place in places
            )
            if self._holders is not None:
                everywhere = self._holders.completed(everywhere)
            for context in self._contexts:
                context.local = local
            for found in (local, self._sums(local), everywhere):
                if found and found[0].level in self._scenario.observe.levels:
                    self._read(found)
            self._work.forget(round)
            self.seconds += time.perf_counter() - started

    def _sums(self, local: Sequence[Transition]) -> list[Transition]:
        """What secure aggregation would show of these clients, where that is asked for."""
        scenario = self._scenario
        return sums_of(local, scenario.observe.sums, _weighting(scenario), scenario.seed, self._federation.audit)

    def _read(self, transitions: list[Transition]) -> None:
        """Evidence for estimators, which read clients and the aggregate, then the readings of probes."""
        if transitions[0].level != "sum":
            self._gather(transitions)
        for probe, source, context in zip(self._scenario.probes, self._sources, self._contexts, strict=True):
            if transitions[0].level in probe.levels and self._due(probe, transitions[0].round):
                self._probe(probe, source, context, transitions)

    def _gather(self, transitions: list[Transition]) -> None:
        first, model = transitions[0], self._federation.model
        with Guard("model", model, "forward", round=first.round, level=first.level):
            self._ask(transitions)

    def _ask(self, transitions: list[Transition]) -> None:
        """What the models say about every set of examples, and about references."""
        federation = self._federation
        models = [transition.kept for transition in transitions]
        audit = evidence_of(models, transitions, "audit", federation.audit.examples, self._executor)
        self.evidence.append(audit)
        for name, examples in (("test", federation.test), ("population", federation.population)):
            if len(examples):
                self.evidence.append(evidence_of(models, transitions, name, examples, self._executor))
                if name == "test" and audit.level == "global":
                    self.accuracy = accuracy(self.evidence[-1])
        for references in federation.references:
            self.references.append(rank_of(models, transitions, references, federation.audit, audit, self._executor))

    def _due(self, probe: Probe, round: int) -> bool:
        return probe.every is None or round % probe.every == 0 or round == self._scenario.rounds

    def _probe(self, probe: Probe, source: str, context: _Context, transitions: list[Transition]) -> None:
        first = transitions[0]
        with Guard("probe", probe, "observe", whole=True, round=first.round, level=first.level) as guard:
            readings = readings_of(guard, probe.observe(transitions, context), transitions)
        for transition, reading in readings:
            self.measurements.append(
                Measurement(
                    run=transition.run,
                    round=first.round,
                    level=first.level,
                    client=transition.client,
                    source=source,
                    reading=labelled(reading, transition),
                )
            )
