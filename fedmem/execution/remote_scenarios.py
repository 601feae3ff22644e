"""Banks of scenarios that workers without these files train, and whose finished folders are stored here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from typing import TYPE_CHECKING, Any

from fedmem.contracts.events import Event
from fedmem.errors import BusyError, DiskError, FedmemError, RunError
from fedmem.execution.archives import pack, unpack
from fedmem.execution.remote_shards import require_same
from fedmem.execution.shard_lock import claim
from fedmem.processes import Do, ProcessDied, Report, WorkerPool
from fedmem.results.folder import is_finished, writing

if TYPE_CHECKING:
    from fedmem.execution.backends import Backend
    from fedmem.scenario.scenario import Scenario

PATIENCE_SECONDS = 2.0
"""How long another process that runs the same scenario is waited for, before its result is left to it."""


@dataclass(frozen=True, kw_only=True)
class SentScenario:
    """A scenario as it is sent to a worker.

    Attributes:
        place: Its place among all.
        scenario: As `Scenario.dump` gives it.
        made_from: What its numbers depend on, on the machine that asks, as far as that is known without its data.
        before: The folder of the phase before, packed; empty for a first training.
        auto: What `device: auto` is, as the machine that asks has decided; None where the scenario says a device.
    """

    place: int
    scenario: Mapping[str, Any]
    made_from: Mapping[str, str]
    before: bytes
    auto: str | None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the scenario at this place has ended on its worker: with the files of its folder, or with an error."""

    place: int
    files: bytes = b""
    error: FedmemError | None = None


BankJob = tuple[SentScenario, ...]
"""The scenarios of a bank."""


@dataclass(frozen=True, kw_only=True)
class BankSetup:
    """Makes what runs banks of scenarios on a worker; `folder` is the working folder, in which files are found."""

    folder: str

    def __call__(self) -> Do[BankJob, Event | Ended, None]:
        """Nothing is built before the first job."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        return run_bank


def run_bank(job: BankJob, report: Report[Event | Ended]) -> None:
    """Run the scenarios of a bank in a folder that is removed afterwards, and report each as it ends."""
    from fedmem.execution.devices import auto_decided_once
    from fedmem.execution.many_scenarios import EndedScenario, train_bank
    from fedmem.execution.phases import folder_before
    from fedmem.execution.run import folder_of
    from fedmem.execution.sharding import made_without_data
    from fedmem.scenario.scenario import Scenario

    with ExitStack() as stack:
        out = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedmem-"))
        decisions = [sent.auto for sent in job if sent.auto is not None]
        if decisions:
            stack.enter_context(auto_decided_once(lambda: decisions[0]))
        scenarios: dict[int, Scenario] = {}
        for sent in job:
            scenario = Scenario(**sent.scenario)
            try:
                require_same(sent.made_from, made_without_data(scenario))
            except RunError as error:
                report(Ended(place=sent.place, error=error))
                continue
            scenarios[sent.place] = scenario
            if (before := folder_before(scenario, out)) is not None and not is_finished(before):
                unpack(sent.before, before)
        folders = {place: folder_of(scenario, out) for place, scenario in scenarios.items()}

        def pass_on(event: object) -> None:
            if isinstance(event, EndedScenario):
                files = pack(folders[event.place]) if event.error is None else b""
                report(Ended(place=event.place, files=files, error=event.error))
            elif isinstance(event, Event):
                report(event)

        train_bank(scenarios, folders, force=True, report=pass_on, out=out)


class ScenarioPool:
    """Sends banks of scenarios to the workers of a pool, and puts finished folders in their places.

    A scenario that another process runs here is left out, and `busy` is called.

    Args:
        open_pool: From a function that receives reports, the pool.
        scenarios: All of them, by place.
        folders: Their folders here.
        force: Whether finished folders are replaced.
        receive: Gets the name of a job and each event of it.
        ended: Gets the place of each scenario that has ended, and its error.
        busy: Gets the place of each scenario that is left to another process.
        card: The GPU of the workers, where they have one that is used.
    """

    def __init__(
        self,
        open_pool: Callable[[Callable[[str, Any], None]], AbstractContextManager[WorkerPool[BankJob, None]]],
        scenarios: Mapping[int, Scenario],
        folders: Sequence[Path],
        *,
        force: bool,
        receive: Callable[[str, Event], None],
        ended: Callable[[int, FedmemError | None], None],
        busy: Callable[[int], None],
        card: str | None = None,
    ) -> None:
        self._open_pool = open_pool
        self._scenarios = scenarios
        self._folders = folders
        self._force = force
        self._pass_on = receive
        self._ended = ended
        self._busy = busy
        self._card = card
        self._stack = ExitStack()
        self._claims: dict[str, ExitStack] = {}

    def __enter__(self) -> ScenarioPool:
        self._pool = self._stack.enter_context(self._open_pool(self._on_report))
        return self

    def __exit__(self, *error: Any) -> None:
        for claims in self._claims.values():
            self._stack.push(claims)
        self._stack.__exit__(*error)

    def start(self, name: str, bank: tuple[int, ...]) -> None:
        """See `WorkerPool.start`."""
        claims = self._claims[name] = ExitStack()
        sent = []
        for place in bank:
            try:
                claims.enter_context(claim(self._folders[place], force=self._force, patience=PATIENCE_SECONDS))
            except BusyError:
                self._busy(place)
            else:
                sent.append(self._send(place))
        self._pool.start(name, tuple(sent))

    def _send(self, place: int) -> SentScenario:
        from fedmem.execution.devices import auto_device
        from fedmem.execution.phases import folder_before
        from fedmem.execution.sharding import made_without_data

        scenario = self._scenarios[place]
        before = folder_before(scenario, self._folders[place].parent.parent)
        speed = scenario.speed.model_copy(update={"workers": 1})  # there are other workers beside it
        return SentScenario(
            place=place,
            scenario=scenario.model_copy(update={"speed": speed}).dump(),
            made_from=made_without_data(scenario, card=self._card),
            auto=auto_device() if scenario.speed.device == "auto" else None,
            before=b"" if before is None else pack(before),
        )

    def wait_for_one(self) -> tuple[str, None]:
        """See `WorkerPool.wait_for_one`."""
        try:
            name, _ = self._pool.wait_for_one()
        except ProcessDied as error:
            self._claims.pop(error.name).close()
            raise
        self._claims.pop(name).close()
        return name, None

    def _on_report(self, name: str, what: Event | Ended) -> None:
        if isinstance(what, Event):
            self._pass_on(name, what)
            return
        error = what.error
        if error is None:
            try:
                with writing(self._folders[what.place], force=True) as partial:
                    unpack(what.files, partial)
            except TarError as damage:
                error = RunError(f"the results arrived damaged ({damage}); run the same command again")
            except DiskError:
                raise
            except FedmemError as problem:
                error = problem
        self._ended(what.place, error)


def num_workers(backend: Backend, scenarios: Iterable[Scenario]) -> int:
    """How many workers may run scenarios at once, each of which can run any of them."""
    threads, gpu = _largest(scenarios)
    return backend.num_workers(threads, gpu=gpu)


def pool_for(
    backend: Backend, scenarios: Iterable[Scenario], workers: int, receive: Callable[[str, Any], None]
) -> AbstractContextManager[WorkerPool[BankJob, None]]:
    """A pool whose workers can run any of these scenarios."""
    threads, gpu = _largest(scenarios)
    return backend.pool(BankSetup(folder=os.getcwd()), receive, workers=workers, threads=threads, gpu=gpu)


def card_for(backend: Backend, scenarios: Iterable[Scenario]) -> str | None:
    """The GPU of the workers, where one of these scenarios needs one."""
    return backend.card() if _largest(scenarios)[1] else None


def _largest(scenarios: Iterable[Scenario]) -> tuple[int, bool]:
    """The threads of the largest of these scenarios, and whether one needs a GPU."""
    from fedmem.execution.devices import wants_gpu

    scenarios = list(scenarios)
    return max(scenario.speed.threads for scenario in scenarios), any(map(wants_gpu, scenarios))
