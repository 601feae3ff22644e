"""The runs of a bank in shards: kept as they are done, trained in several processes, joined to what one shard gives."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fedmem.contracts.events import Emit, Event, ShardStarted, ShardStored, StageStarted, TrainingStarted, silent
from fedmem.contracts.evidence import Bank, Dropped, Lost, TrainedBank
from fedmem.contracts.federation import Federation, digest
from fedmem.contracts.sampler import Pilot
from fedmem.engines._failures import Ledger
from fedmem.execution.backends import Backend, backend_without_forks
from fedmem.execution.bank import gather, inputs_of, pilot_of, targets_of
from fedmem.execution.devices import card_of, chosen_device, wants_gpu
from fedmem.execution.executors import executor_of
from fedmem.execution.join_shards import join
from fedmem.execution.memory_budget import cut_of, room_of
from fedmem.execution.model_saver import ModelSaver
from fedmem.execution.remote_shards import ShardJob, StoringPool, setup_of
from fedmem.execution.shard_store import Shards, divide, name_of
from fedmem.processes import ForkPool, InProcessPool, Report, WorkerPool
from fedmem.results.provenance import code, components_of, files_of, modules_of, versions
from fedmem.training.executor import Executor

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.executor import Executor

_NO_NUMBERS = ("workers", "shard", "memory", "address", "seconds_per_client")
"""Settings of speed that leave the numbers as they are to the last bit."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a bank was trained: the sizes of its shards, how many were there already, and the processes at work."""

    shards: tuple[int, ...]
    resumed: int
    workers: int


def train(
    scenario: Scenario,
    federation: Federation,
    shards: Shards,
    *,
    emit: Emit = silent,
    watch: bool = True,
    executor: Executor | None = None,
    backend: Backend | None = None,
) -> tuple[TrainedBank, Division]:
    """Train what is missing of a bank, shard by shard, and put it together. With `watch=False` nothing is observed.

    With an `executor`, which the caller owns, all is trained in this process. With a `backend`, which is connected, the
    shards are trained by its workers. Where the system cannot fork, processes are started for several shards at once.

    Guarantees:

    - the result is the same to the last bit, however often the training was interrupted and however many processes
      share it. On one thread each, it is that of one shard of all runs, whatever `speed.shard` is. More threads add up
      the numbers of a stack of one client in another order;
    - a shard is kept when all that was read of it has reached the disk. It is trained again only where a client fails
      that did not fail in the shards before;
    - a pilot, where there is one, is trained before all shards, and kept as they are;
    - shards of other code, data, versions or settings are not used, nor are damaged ones.

    Errors: those of `simulate`, at once, by whichever shard comes first; `RunError` where a process dies.
    """
    gpu = wants_gpu(scenario, federation)
    card = backend.card() if backend is not None and gpu else None
    stored_shards, refused = shards.open(made_with(scenario, federation, card))
    room = room_of(scenario, federation)
    if backend is not None:
        remote_workers = backend.num_workers(scenario.speed.threads, gpu=gpu)
        share = -(-scenario.runs // remote_workers)
        room = replace(room, shard=min(room.shard, share), workers=remote_workers)
    plan = divide(scenario.runs, room.shard, list(stored_shards))
    ledger = Ledger(shards.known_failures())
    dropped = dict(stored_shards)
    before = ledger.lost
    for failures in stored_shards.values():
        ledger.add(failures)
    if ledger.lost is not before:
        shards.store_failures(ledger.lost)  # it was killed before it could write this
    missing = [shard for shard in plan if shard not in dropped or not ledger.agrees(dropped[shard])]
    workers = max(1, min(room.workers, len(missing))) if executor is None else 1
    backend = backend or backend_without_forks(workers)
    sizes = tuple(len(shard) for shard in plan)
    division = Division(shards=sizes, resumed=len(plan) - len(missing), workers=workers)
    pilot = shards.pilot()
    if missing and pilot is None:
        pilot = pilot_of(scenario, federation, emit, executor)
        if pilot is not None:
            shards.keep_pilot(pilot)
    for line in refused:
        emit(StageStarted(text=line))
    if missing:
        runs = sum(map(len, missing))
        stored = scenario.runs - runs
        emit(TrainingStarted(rounds=scenario.rounds, runs=runs, shards=len(missing), stored=stored, processes=workers))

    def forward_event(_: str, event: Event) -> None:
        emit(event)

    trainer = ShardTrainer(scenario, federation, None if workers == 1 else 1, watch, pilot, executor)

    def train_shard(job: ShardJob, report: Report[Event]) -> Lost:
        return trainer(job, report, shards)

    pool: AbstractContextManager[WorkerPool[ShardJob, Lost]]
    if backend is not None:
        setup = setup_of(scenario, federation, shards, watch=watch, pilot=pilot)
        opened = backend.pool(setup, forward_event, workers=workers, threads=scenario.speed.threads, gpu=gpu)
        pool = StoringPool(opened, shards, emit)
    elif workers == 1:
        pool = InProcessPool(train_shard, forward_event)
    else:  # a fork has no workers of its own
        pool = ForkPool(train_shard, forward_event, shards.let_go)
    with closing(trainer), pool as working_pool:
        train_all(plan, dropped, ledger, working_pool, workers, shards.store_failures)
    emit(StageStarted(text="joining shards"))
    bank = Bank(
        audit=federation.audit,
        evidence=(),
        references=(),
        participation=(),
        seed=scenario.seed,
        roster=scenario.roster,
        exclusion=scenario.exclusion,
        targets=targets_of(federation),
        inputs=inputs_of(scenario, federation),
        label_counts=federation.label_counts,
    )
    simulated = join(
        [shards.read_shard(shard, bank) for shard in plan], scenario.probes if watch else (), scenario.seed
    )
    return replace(simulated, pilot=pilot), division


def train_all(
    plan: Sequence[range],
    dropped: dict[range, Dropped],
    ledger: Ledger,
    pool: WorkerPool[ShardJob, Lost],
    workers: int,
    report: Callable[[Lost], None],
) -> None:
    """Train shards until each is there and agrees with what is known to fail.

    Args:
        plan: All shards.
        dropped: The shards that are there, with the clients dropped in them; is completed.
        ledger: The clients that are known to fail; updated by every shard.
        pool: Trains a shard, given the known failures: `(shard, lost)`; returns further failures.
        workers: How many shards are trained at once.
        report: Is called whenever the known failures change.
    """
    working: dict[str, tuple[range, Lost]] = {}
    while True:
        busy = [shard for shard, _ in working.values()]
        idle = [
            candidate
            for candidate in plan
            if candidate not in busy and not (candidate in dropped and ledger.agrees(dropped[candidate]))
        ]
        for shard in idle[: workers - len(working)]:
            known_failures = ledger.lost
            working[name_of(shard)] = shard, known_failures
            pool.start(name_of(shard), (shard, known_failures))
        if not working:
            return
        name, new_failures = pool.wait_for_one()
        shard, known_failures = working.pop(name)
        dropped[shard] = Dropped(known=known_failures, found=new_failures)
        if ledger.add(dropped[shard]):
            report(ledger.lost)


class ShardTrainer:
    """Trains shards and keeps them, by one executor, whose steps are traced once for all; returns who failed in one."""

    def __init__(
        self,
        scenario: Scenario,
        federation: Federation,
        workers: int | None,
        watch: bool,
        pilot: Pilot | None,
        executor: Executor | None = None,
    ) -> None:
        self._scenario = scenario
        self._federation = federation
        self._workers = workers
        self._watch = watch
        self._pilot = pilot
        self._executor = executor
        self._own_executor: Executor | None = None

    def __call__(self, job: ShardJob, report: Report[Event], shards: Shards) -> Lost:
        """Train a shard and keep it in `shards`."""
        shard, known_failures = job
        report(ShardStarted(first=shard[0], last=shard[-1]))
        if self._executor is None:
            self._executor = self._own_executor = executor_of(self._scenario, self._federation, self._workers)
        # models are stored where the scenario asks for some; otherwise they are looked at alone
        save = self._scenario.save.models
        saver = True if save is None else ModelSaver(save, shards.models_folder(shard))
        done = gather(
            self._scenario,
            self._federation,
            runs=shard,
            emit=report,
            watch=self._watch and saver,
            lost=known_failures,
            pilot=self._pilot,
            executor=self._executor,
        )
        new_failures = {place: why for place, why in done.failures.items() if place not in known_failures}
        dropped = Dropped(known=known_failures, found=new_failures)
        shards.write(shard, done, dropped, params=self._scenario.save.params)
        report(ShardStored(first=shard[0], last=shard[-1]))
        return new_failures

    def close(self) -> None:
        """Let go of the workers of an executor that was made in this process."""
        if self._own_executor is not None:
            self._own_executor.close()


def made_with(scenario: Scenario, federation: Federation, card: str | None = None) -> Mapping[str, str]:
    """All that the numbers of a shard depend on, by name. `card` is the GPU of workers elsewhere."""
    return {
        **made_without_data(scenario, federation, card),
        # a budget cuts the products of forward passes, whose last bits depend on how many rows there are
        "rows of a forward pass": str(cut_of(scenario, federation).forward_rows),
        "data": digest(federation),
    }


def made_without_data(
    scenario: Scenario, federation: Federation | None = None, card: str | None = None
) -> Mapping[str, str]:
    """The same, as far as it is known before the federation is built."""
    device = chosen_device(scenario, federation)
    speed = {name: value for name, value in scenario.dump()["speed"].items() if name not in _NO_NUMBERS}
    speed["device"] = device
    name = None if device == "cpu" else card or card_of(device)
    return {
        "scenario": scenario.id,
        "settings of speed": str(speed),
        "code of fedmem": code(),
        "python": platform.python_version(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        **({"card": name} if name else {}),
        **{f"code of {kind}": content for kind, content in components_of(scenario).items()},
        **{f"module {name}": content for name, content in modules_of(scenario).items() if name != "fedmem"},
        **{f"files of {name}": content for name, content in files_of(scenario).items()},
        **{f"version of {package}": content for package, content in versions(scenario.speed.engine).items()},
    }
