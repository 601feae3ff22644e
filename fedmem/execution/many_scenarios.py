"""Many scenarios at once: in few banks, in all processes, each into a run folder of its own, and never twice.

Scenarios with the same model and client algorithm train their clients in one stack (`engines.together`), those with the
same data share one federation. Each ends with the bytes that `fedmem run` gives it alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.events import (
    Emit,
    Event,
    Listener,
    ListenerError,
    ScenarioFailed,
    ScenarioFinished,
    ScenariosStarted,
    emitter,
)
from fedmem.errors import BusyError, FedmemError, FolderError
from fedmem.execution.checked_inputs import build_federation
from fedmem.execution.grouping import data_of, divide_into_banks, partition, width_of
from fedmem.execution.notebook import notebook_listeners
from fedmem.execution.run import compute, folder_of, serve_finished, with_required_noise
from fedmem.guards.guarding import Rescuing
from fedmem.scenario.unfolding import last_phase

if TYPE_CHECKING:
    from fedmem.contracts.data import Examples
    from fedmem.contracts.federation import Federation
    from fedmem.engines.shared_training import SharedExecutor
    from fedmem.execution.memory_plan import MemoryLimits
    from fedmem.processes import Report, WorkerPool
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.executor import Executor

ROUND_BYTES = 1 << 28
"""Models of one round that several scenarios hold together, at most."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a scenario: its folder, and why it failed, if it did, and whether an earlier run finished it."""

    scenario: Scenario
    folder: Path
    was_finished: bool = False
    error: FedmemError | None = None


def run_all(
    scenarios: Sequence[Scenario],
    *,
    out: Path | str = "runs",
    force: bool = False,
    jobs: int | None = None,
    listeners: Sequence[Listener] = (),
) -> list[Outcome]:
    """Run different scenarios and return the result or failure of each.

    Args:
        scenarios: All of them different.
        out: Where their folders go, as `<out>/<name>/<id>`.
        force: Run again what is finished.
        jobs: How many processes work; by default as many as the scenarios may have workers.
        listeners: Each is called with every event (`fedmem.contracts.events`) of every scenario. Without any, a
            notebook shows the progress.

    Guarantees:

    - a finished run is not repeated unless `force`. It is refused where the code that makes it or a file that it reads
      has changed since;
    - each folder holds the same measurements, evidence and parameters as if its scenario had been run alone;
    - a folder appears as soon as its scenario is done, so a process that is killed loses only what was under way;
    - a scenario that another process runs is left to it, and its result is taken when it is there;
    - a scenario that fails takes no other with it.

    Errors: `FolderError` before anything is trained, where a folder cannot be used.
    """
    from fedmem.execution.auto import workers_of
    from fedmem.processes import ForkPool, InProcessPool, ProcessDied, can_fork
    from fedmem.results.folder import check_place, is_finished

    scenarios = [last_phase(scenario) for scenario in scenarios]
    folders = [folder_of(scenario, out) for scenario in scenarios]
    finished_places = [i for i, folder in enumerate(folders) if is_finished(folder) and not force]
    for i, folder in enumerate(folders):
        if i not in finished_places:
            try:
                check_place(folder, force=force)
            except FolderError:
                if force or not is_finished(folder):
                    raise
                finished_places.append(i)  # finished by another process a moment ago
        if i in finished_places:
            serve_finished(_with_noise(scenarios[i]), folder)
    ended: dict[int, FedmemError | None] = {}
    elsewhere: list[int] = []
    emit = emitter(listeners or notebook_listeners())

    def forward_event(_: str, event: _Progress) -> None:
        if isinstance(event, Event):
            emit(event)
        elif isinstance(event, _Busy):
            elsewhere.append(event.place)
        elif event.place not in ended and not (event.place in elsewhere and isinstance(event.error, ProcessDied)):
            # a process that died may have finished some
            ended[event.place] = event.error
            emit(event.event(folders[event.place]))

    missing = {i: _with_noise(scenario) for i, scenario in enumerate(scenarios) if i not in finished_places}
    failed_before = _run_phases_before(missing, out=out, force=force, jobs=jobs, listeners=listeners)
    emit(ScenariosStarted(total=len(scenarios), finished=len(finished_places)))
    for i, error in failed_before.items():
        forward_event("", _Ended(place=i, error=error))
        del missing[i]
    workers = max((workers_of(scenario) for scenario in missing.values()), default=1) if jobs is None else jobs
    banks, unpooled = divide_into_banks(missing, workers)
    workers = min(workers, len(banks))

    def train(bank: tuple[int, ...], report: Report[_Progress]) -> None:
        _train({i: missing[i] for i in bank}, folders, force, report, out)

    with ForkPool(train, forward_event) if workers > 1 and can_fork() else InProcessPool(train, forward_event) as pool:
        _work_off(banks, pool, workers, partial(forward_event, ""))
    report = partial(forward_event, "")
    for i in (*unpooled, *elsewhere):
        work = partial(_by_itself, missing[i], folders[i], out=out, force=force, emit=_emit_at(i, report))
        _attempt(i, work, report)
    return [
        Outcome(scenario=scenario, folder=folder, was_finished=i in finished_places, error=ended.get(i))
        for i, (scenario, folder) in enumerate(zip(scenarios, folders, strict=True))
    ]


def _with_noise(scenario: Scenario) -> Scenario:
    """The scenario with the noise that its data require; errors in the data are reported when it is run."""
    try:
        return with_required_noise(scenario)
    except FedmemError:
        return scenario


def _work_off(
    banks: Sequence[tuple[int, ...]], pool: WorkerPool[tuple[int, ...], None], workers: int, report: Report[_Progress]
) -> None:
    """So many at a time, in their order; what a process that dies had not finished has failed."""
    from fedmem.processes import ProcessDied

    names = {f"scenarios {', '.join(str(i + 1) for i in bank)}": bank for bank in banks}
    waiting = list(names.items())
    under_way = 0
    while waiting or under_way:
        while waiting and under_way < workers:
            name, bank = waiting.pop(0)
            pool.start(name, bank)
            under_way += 1
        try:
            pool.wait_for_one()
        except ProcessDied as error:
            for i in names[error.name]:
                report(_Ended(place=i, error=error))
        under_way -= 1


def _run_phases_before(
    scenarios: Mapping[int, Scenario],
    *,
    out: Path | str,
    force: bool,
    jobs: int | None,
    listeners: Sequence[Listener],
) -> dict[int, FedmemError]:
    """Run the phases before those of these scenarios, each once; why a scenario cannot follow, by its place."""
    earlier = {s.previous.id: s.previous for s in scenarios.values() if s.previous is not None}
    if not earlier:
        return {}
    outcomes = run_all(list(earlier.values()), out=out, force=force, jobs=jobs, listeners=listeners)
    failed = {outcome.scenario.id: outcome.error for outcome in outcomes if outcome.error is not None}
    return {
        i: failed[s.previous.id] for i, s in scenarios.items() if s.previous is not None and s.previous.id in failed
    }


def _train(
    scenarios: Mapping[int, Scenario],
    folders: Sequence[Path],
    force: bool,
    report: Report[_Progress],
    out: Path | str,
) -> None:
    """Run the scenarios of one bank."""
    from fedmem.engines.shared_training import SharedBank, run_together
    from fedmem.execution.executors import executor_of
    from fedmem.execution.memory_budget import cut_of

    federations: dict[str, Federation] = {}
    going: list[int] = []
    for i, scenario in scenarios.items():
        if _try_work(i, partial(_build, scenario, federations, out), report):
            going.append(i)
    executors: dict[tuple[str, MemoryLimits], Executor] = {}
    for group in _group_alike(going, scenarios, federations):
        members = []
        for i in group:
            scenario, started = scenarios[i], time.perf_counter()
            federation = federations[data_of(scenario)]
            how: dict[str, Any] = {"force": force, "emit": _emit_at(i, report), "patience": 0.0}
            work = partial(compute, scenario, federation, folders[i], started, **how)
            if len(group) == 1:
                _attempt(i, work, report)
                continue
            key = data_of(scenario), cut_of(scenario, federation)
            executors[key] = executors.get(key) or executor_of(scenario, federation)
            start = partial(_run_shared, i, work, report)
            members.append(SharedBank(start=start, executor=executors[key], store=federation.store))
        scenario = scenarios[group[0]]
        for ended in run_together(members, partial(_executor, scenario, federations[data_of(scenario)])):
            if isinstance(ended, Exception):
                raise ended


def _group_alike(
    places: Sequence[int], scenarios: Mapping[int, Scenario], federations: Mapping[str, Federation]
) -> list[tuple[int, ...]]:
    """Scenarios whose clients may be in one stack, with models of one round that fit into memory.

    One network trains a stack, so that federations with frozen tensors of their own are apart. Scenarios whose
    clients are not stacked are apart as well, since draws belong to one round. So are those with tied units, which
    belong to the rows of one store, and those with client shards.
    """
    groups: dict[object, list[int]] = {}
    for i in places:
        key = data_of(scenarios[i])
        federation = federations[key]
        mode = federation.mode
        is_separate = mode.differs or mode.tied is not None or mode.client_shards is not None
        alike: object = i if is_separate else key if federation.frozen else None
        groups.setdefault(alike, []).append(i)
    return [
        part
        for members in groups.values()
        for part in partition(members, [_bytes(scenarios[i], federations) for i in members], ROUND_BYTES)
    ]


def _executor(scenario: Scenario, federation: Federation, store: Examples) -> Executor:
    """The executor for the clients of a scenario, and of others like it, on this store."""
    from fedmem.execution.executors import executor_of

    return executor_of(scenario, replace(federation, store=store))


def _build(scenario: Scenario, federations: dict[str, Federation], out: Path | str) -> None:
    """The federation of a scenario, unless it is there."""
    key = data_of(scenario)
    if key not in federations:
        federations[key] = build_federation(scenario, out)


def _bytes(scenario: Scenario, federations: Mapping[str, Federation]) -> float:
    """Bytes of the models of one round."""
    from fedmem.federation.roster import Cohorts

    federation = federations[data_of(scenario)]
    model = sum(value.numel() * value.element_size() for value in federation.initial.values())
    return width_of(scenario) * Cohorts.draw(scenario, federation).largest_cohort * model


def _by_itself(scenario: Scenario, folder: Path, *, out: Path | str, force: bool, emit: Emit) -> None:
    """Run one scenario; another process that runs it is waited for, however long it takes."""
    from fedmem.execution.shard_lock import wait_for
    from fedmem.results.folder import is_finished

    started = time.perf_counter()
    wait_for(folder)
    if force or not is_finished(folder):
        federation = build_federation(scenario, out)
        compute(scenario, federation, folder, started, force=force, emit=emit, patience=math.inf)


def _run_shared(place: int, work: Callable[..., object], report: Report[_Progress], executor: SharedExecutor) -> None:
    _attempt(place, partial(work, executor=executor), report)


def _attempt(place: int, work: Callable[[], object], report: Report[_Progress]) -> None:
    """Do it, and tell how it ended."""
    if _try_work(place, work, report):
        report(_Ended(place=place, error=None))


def _try_work(place: int, work: Callable[[], object], report: Report[_Progress]) -> bool:
    """Do it; where that fails, tell why."""
    try:
        with Rescuing():
            work()
    except BusyError:
        report(_Busy(place=place))
        return False
    except ListenerError:
        raise
    except FedmemError as error:
        report(_Ended(place=place, error=error))
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """The scenario at this place is finished, or has failed."""

    place: int
    error: FedmemError | None

    def event(self, folder: Path) -> Event:
        """The same for listeners."""
        if self.error is None:
            return ScenarioFinished(place=self.place, folder=str(folder))
        return ScenarioFailed(place=self.place, error=str(self.error))


@dataclass(frozen=True, kw_only=True)
class _Busy:
    """The scenario at this place is run by another process."""

    place: int


_Progress = Event | _Ended | _Busy
"""The reports of a bank: events of its scenarios, and how each ends."""


def _emit_at(place: int, report: Report[_Progress]) -> Emit:
    """A function that passes on the events of the scenario at this place."""

    def emit(event: Event) -> None:
        report(replace(event, place=place))

    return emit
