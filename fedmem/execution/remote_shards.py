"""Shards of a bank that workers without this memory and these files train, and that are stored here."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmem.contracts.events import Event, ShardStored
from fedmem.contracts.evidence import Lost
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import Pilot
from fedmem.errors import RunError
from fedmem.execution.archives import pack, unpack
from fedmem.execution.shard_store import Made, Shards, name_of
from fedmem.processes import Do, Report, WorkerPool
from fedmem.scenario.scenario import Scenario

ShardJob = tuple[range, Lost]
"""The runs of a shard, and the clients that are known to fail."""


@dataclass(frozen=True, kw_only=True)
class TrainedShard:
    """A shard that a worker has trained: the runs, the clients that failed and were not known to, and its files."""

    shard: range
    failures: Lost
    files: bytes


@dataclass(frozen=True, kw_only=True)
class ShardSetup:
    """All that a worker needs to train shards of a scenario.

    Attributes:
        scenario: The scenario, as `Scenario.dump` gives it.
        made_from: All that its numbers depend on, as it is on the machine that asks.
        watch: Whether models are looked at.
        pilot: The pilot of the scenario, if it has one.
        before: The folder of the phase before, packed; empty for a first training.
        folder: The working folder, in which files of the scenario are found.
    """

    scenario: Mapping[str, Any]
    made_from: Made
    watch: bool
    pilot: Pilot | None
    before: bytes
    folder: str

    def __call__(self) -> Do[ShardJob, Event, TrainedShard]:
        """Build the federation and compare what it is made of.

        Errors: `RunError` that names this machine and what is different here.
        """
        from fedmem.execution.checked_inputs import build_federation
        from fedmem.execution.phases import folder_before
        from fedmem.execution.sharding import ShardTrainer, made_with

        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        scenario = Scenario(**self.scenario)
        out = tempfile.mkdtemp(prefix="fedmem-")
        if (place := folder_before(scenario, out)) is not None:
            unpack(self.before, place)
        federation = build_federation(scenario, None if place is None else out)
        require_same(self.made_from, made_with(scenario, federation))
        trainer = ShardTrainer(scenario, federation, 1, self.watch, self.pilot)

        def train(job: ShardJob, report: Report[Event]) -> TrainedShard:
            def pass_on(event: Event) -> None:
                if not isinstance(event, ShardStored):  # it is not yet where it was asked for
                    report(event)

            with tempfile.TemporaryDirectory(prefix="fedmem-") as place:
                shards = Shards(Path(place), None)
                shards.made_from = dict(self.made_from)
                failures = trainer(job, pass_on, shards)
                return TrainedShard(shard=job[0], failures=failures, files=pack(shards.folder_of(job[0])))

        # what the phase before left is read in training
        weakref.finalize(train, shutil.rmtree, out, ignore_errors=True)
        return train


def setup_of(
    scenario: Scenario, federation: Federation, shards: Shards, *, watch: bool, pilot: Pilot | None
) -> ShardSetup:
    """The setup of workers that train the shards of a scenario.

    A budget of memory is shared out among the processes of the machine that asks, and its cuts are in the numbers. That
    machine also decides the device.
    """
    from fedmem.execution.auto import workers_of
    from fedmem.execution.devices import chosen_device

    device = chosen_device(scenario, federation)
    speed = scenario.speed.model_copy(update={"workers": workers_of(scenario), "device": device})
    return ShardSetup(
        scenario=scenario.model_copy(update={"speed": speed}).dump(),
        made_from=shards.made_from,
        watch=watch,
        pilot=pilot,
        before=b"" if federation.before is None else pack(federation.before.folder),
        folder=os.getcwd(),
    )


def require_same(expected: Made, found: Made) -> None:
    """Errors: `RunError` with the name of this machine where its numbers would not be those of the other machine."""
    import socket

    differing = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if not differing:
        return
    listed = "; ".join(
        f"{name}: {_short(found.get(name))} there, {_short(expected.get(name))} here" for name in differing[:5]
    )
    more = f" and {len(differing) - 5} more" * (len(differing) > 5)
    raise RunError(
        f"the machine {socket.gethostname()} would not give the same numbers as this one, since these differ: "
        f"{listed}{more}. Install the same versions, code and data there, or leave that machine out"
    )


def _short(content: str | None) -> str:
    """A version as it is, a digest by its first digits."""
    return "none" if content is None else content if len(content) <= 40 else f"{content[:8]}…"


class StoringPool:
    """Stores what the workers of another pool have trained, and gives their failures; a pool for `train_all`."""

    def __init__(
        self,
        pool: AbstractContextManager[WorkerPool[ShardJob, TrainedShard]],
        shards: Shards,
        emit: Callable[[Event], None],
    ) -> None:
        self._context = pool
        self._shards = shards
        self._emit = emit

    def __enter__(self) -> StoringPool:
        self._pool = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def start(self, name: str, job: ShardJob) -> None:
        """See `WorkerPool.start`."""
        self._pool.start(name, job)

    def wait_for_one(self) -> tuple[str, Lost]:
        """See `WorkerPool.wait_for_one`. Errors: also `RunError` where the files of a shard have arrived damaged."""
        name, done = self._pool.wait_for_one()
        shard = done.shard
        if name != name_of(shard):
            raise RunError(f"a worker sent {name_of(shard)} and was asked for {name}; run the same command again")
        self._shards.install(shard, done.files)
        self._emit(ShardStored(first=shard[0], last=shard[-1]))
        return name, done.failures
