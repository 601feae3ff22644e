"""Many scenarios at once: in few banks, in all processes, each into a run folder of its own, and never twice.

Scenarios with the same model and client algorithm train their clients in one stack (`engines.together`), those with the
same data share one federation. Each ends with the bytes that `fedmem run` gives it alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
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
from fedmem.errors import BusyError, DiskError, FedmemError, FolderError
from fedmem.execution.backends import backend_without_forks
from fedmem.execution.checked_inputs import build_federation
from fedmem.execution.devices import auto_decided_once, device_of_workers, wants_gpu
from fedmem.execution.grouping import data_of, divide_into_banks, group_alike
from fedmem.execution.notebook import notebook_listeners
from fedmem.execution.remote_scenarios import ScenarioPool, card_for, num_workers, pool_for
from fedmem.execution.run import backend_for, compute, folder_of, serve_finished, with_required_noise
from fedmem.guards.guarding import Rescuing
from fedmem.scenario.unfolding import last_phase
from fedmem.training.free_memory import give_back_memory

if TYPE_CHECKING:
    from fedmem.contracts.data import Examples
    from fedmem.contracts.federation import Federation
    from fedmem.engines.shared_training import SharedExecutor
    from fedmem.execution.backends import Backend
    from fedmem.execution.memory_plan import MemoryLimits
    from fedmem.processes import Report, WorkerPool
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.executor import Executor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a scenario: its folder, and why it failed, if it did, and whether an earlier run finished it."""

    scenario: Scenario
    folder: Path
    was_finished: bool = False
    error: FedmemError | None = None


MEMORY_EVERY = 20
"""After so many banks a process gives its free memory back, which takes some tenths of a second."""


def run_all(
    scenarios: Sequence[Scenario],
    *,
    out: Path | str = "runs",
    force: bool = False,
    jobs: int | None = None,
    listeners: Sequence[Listener] = (),
    on: str | None = None,
) -> list[Outcome]:
    """Run different scenarios and return the result or failure of each.

    Args:
        scenarios: All of them different.
        out: Where their folders go, as `<out>/<name>/<id>`.
        force: Run again what is finished.
        jobs: How many processes work; by default as many as the scenarios may have workers.
        listeners: Each is called with every event (`fedmem.contracts.events`) of every scenario. Without any, a
            notebook shows the progress.
        on: Where they are trained, see `fedmem.execution.run.run`.

    Guarantees:

    - a finished run is not repeated unless `force`. It is refused where the code that makes it or a file that it reads
      has changed since;
    - each folder holds the same measurements, evidence and parameters as if its scenario had been run alone;
    - a folder appears as soon as its scenario is done, so a process that is killed loses only what was under way;
    - a scenario that another process runs is left to it, and its result is taken when it is there;
    - a scenario that fails takes no other with it.

    Errors: `FolderError` before anything is trained, where a folder cannot be used.
    """
    from fedmem.processes import ProcessDied
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
            if event.place not in ended:  # a worker that takes the place of a lost one begins its bank again
                emit(event)
        elif isinstance(event, _Busy):
            elsewhere.append(event.place)
        elif event.place not in ended and not (event.place in elsewhere and isinstance(event.error, ProcessDied)):
            # a process that died may have finished some
            ended[event.place] = event.error
            emit(event.event(folders[event.place]))

    missing = {i: _with_noise(scenario) for i, scenario in enumerate(scenarios) if i not in finished_places}
    backends = {backend_for(scenario, on) for scenario in missing.values()}
    backend = next(iter(backends), None)
    with auto_decided_once(lambda: device_of_workers(backend)):
        failed_before = _run_phases_before(missing, out=out, force=force, jobs=jobs, listeners=listeners, on=on)
        emit(ScenariosStarted(total=len(scenarios), finished=len(finished_places)))
        for i, error in failed_before.items():
            forward_event("", EndedScenario(place=i, error=error))
            del missing[i]
        with nullcontext() if backend is None else backend.connect():
            if missing:
                how = _How(out=out, force=force, jobs=jobs, backend=backend)
                _train_missing(missing, folders, how, forward_event, elsewhere)
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


@dataclass(frozen=True, kw_only=True)
class _How:
    """The options of `run_all`."""

    out: Path | str
    force: bool
    jobs: int | None
    backend: Backend | None


def _train_missing(
    missing: Mapping[int, Scenario],
    folders: Sequence[Path],
    how: _How,
    forward_event: Callable[[str, _Progress], None],
    elsewhere: Sequence[int],
) -> None:
    """Run scenarios that are not finished: in banks, and then those that take a bank of their own.

    `elsewhere` grows by those that another process runs, which are waited for.
    """
    from fedmem.execution.auto import workers_of
    from fedmem.processes import ForkPool, InProcessPool, can_fork

    report = partial(forward_event, "")
    if how.jobs is not None:
        workers = how.jobs
    elif how.backend is not None:
        workers = num_workers(how.backend, missing.values())
    else:
        workers = max(workers_of(scenario) for scenario in missing.values())
    banks, unpooled = divide_into_banks(missing, workers, gpus=1 if how.backend is None else workers)
    # a GPU of this machine is used by this process alone, since a fork could not reach it
    here = [bank for bank in banks if how.backend is None and wants_gpu(missing[bank[0]])]
    banks = [bank for bank in banks if bank not in here]
    workers = min(workers, len(banks))
    backend = how.backend or backend_without_forks(workers)

    trained = count(1)

    def train(bank: tuple[int, ...], report: Report[_Progress]) -> None:
        train_bank({i: missing[i] for i in bank}, folders, force=how.force, report=report, out=how.out)
        if next(trained) % MEMORY_EVERY == 0:
            give_back_memory()

    pool: AbstractContextManager[WorkerPool[tuple[int, ...], None]]
    if backend is not None and banks:
        pool = ScenarioPool(
            partial(pool_for, backend, missing.values(), workers),
            missing,
            folders,
            force=how.force,
            receive=forward_event,
            ended=lambda place, error: report(EndedScenario(place=place, error=error)),
            busy=lambda place: report(_Busy(place=place)),
            card=card_for(backend, missing.values()),
        )
    elif workers > 1 and can_fork():
        pool = ForkPool(train, forward_event)
    else:
        pool = InProcessPool(train, forward_event)
    with pool as working_pool:
        _work_off(banks, working_pool, workers, report)
    with InProcessPool(train, forward_event) as this_process:
        _work_off(here, this_process, 1, report)
    for i in (*unpooled, *elsewhere):
        options: dict[str, Any] = {"out": how.out, "force": how.force, "emit": _emit_at(i, report)}
        options["backend"] = how.backend
        _attempt(i, partial(_by_itself, missing[i], folders[i], **options), report)


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
                report(EndedScenario(place=i, error=error))
        under_way -= 1


def _run_phases_before(
    scenarios: Mapping[int, Scenario],
    *,
    out: Path | str,
    force: bool,
    jobs: int | None,
    listeners: Sequence[Listener],
    on: str | None,
) -> dict[int, FedmemError]:
    """Run the phases before those of these scenarios, each once; why a scenario cannot follow, by its place."""
    earlier = {s.previous.id: s.previous for s in scenarios.values() if s.previous is not None}
    if not earlier:
        return {}
    outcomes = run_all(list(earlier.values()), out=out, force=force, jobs=jobs, listeners=listeners, on=on)
    failed = {outcome.scenario.id: outcome.error for outcome in outcomes if outcome.error is not None}
    return {
        i: failed[s.previous.id] for i, s in scenarios.items() if s.previous is not None and s.previous.id in failed
    }


def train_bank(
    scenarios: Mapping[int, Scenario],
    folders: Mapping[int, Path] | Sequence[Path],
    *,
    force: bool,
    report: Report[_Progress],
    out: Path | str,
) -> None:
    """Run the scenarios of one bank, by their places, and report how each ends."""
    from fedmem.engines.shared_training import SharedBank, run_together
    from fedmem.execution.executors import executor_of
    from fedmem.execution.memory_budget import cut_of

    federations: dict[str, Federation] = {}
    going: list[int] = []
    for i, scenario in scenarios.items():
        if _try_work(i, partial(_build, scenario, federations, out), report):
            going.append(i)
    executors: dict[tuple[str, MemoryLimits], Executor] = {}
    for group in group_alike(going, scenarios, federations):
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


def _executor(scenario: Scenario, federation: Federation, store: Examples) -> Executor:
    """The executor for the clients of a scenario, and of others like it, on this store."""
    from fedmem.execution.executors import executor_of

    return executor_of(scenario, replace(federation, store=store))


def _build(scenario: Scenario, federations: dict[str, Federation], out: Path | str) -> None:
    """The federation of a scenario, unless it is there."""
    key = data_of(scenario)
    if key not in federations:
        federations[key] = build_federation(scenario, out)


def _by_itself(
    scenario: Scenario, folder: Path, *, out: Path | str, force: bool, emit: Emit, backend: Backend | None = None
) -> None:
    """Run one scenario; another process that runs it is waited for, however long it takes."""
    from fedmem.execution.shard_lock import wait_for
    from fedmem.results.folder import is_finished

    started = time.perf_counter()
    wait_for(folder)
    if force or not is_finished(folder):
        federation = build_federation(scenario, out)
        compute(scenario, federation, folder, started, force=force, emit=emit, patience=math.inf, backend=backend)


def _run_shared(place: int, work: Callable[..., object], report: Report[_Progress], executor: SharedExecutor) -> None:
    _attempt(place, partial(work, executor=executor), report)


def _attempt(place: int, work: Callable[[], object], report: Report[_Progress]) -> None:
    """Do it, and tell how it ended."""
    if _try_work(place, work, report):
        report(EndedScenario(place=place, error=None))


def _try_work(place: int, work: Callable[[], object], report: Report[_Progress]) -> bool:
    """Do it; where that fails, tell why."""
    try:
        with Rescuing():
            work()
    except BusyError:
        report(_Busy(place=place))
        return False
    except (ListenerError, DiskError):
        raise  # no other scenario could end otherwise
    except FedmemError as error:
        report(EndedScenario(place=place, error=error))
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class EndedScenario:
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


_Progress = Event | EndedScenario | _Busy
"""The reports of a bank: events of its scenarios, and how each ends."""


def _emit_at(place: int, report: Report[_Progress]) -> Emit:
    """A function that passes on the events of the scenario at this place."""

    def emit(event: Event) -> None:
        report(replace(event, place=place))

    return emit
