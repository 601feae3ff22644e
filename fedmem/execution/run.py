"""From a scenario to a finished folder: build, train, observe, estimate, write."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmem.contracts.events import (
    Emit,
    Listener,
    ListenerError,
    ScenarioFailed,
    ScenarioFinished,
    ScenarioStarted,
    StageStarted,
    emitter,
    silent,
)
from fedmem.contracts.federation import Federation
from fedmem.contracts.measurement import Measurement
from fedmem.errors import ComponentError, FedmemError, FolderError, Problem, ScenarioError
from fedmem.execution.checked_inputs import build_federation, changed_data, data_digest, require_same_source
from fedmem.execution.devices import auto_decided_once, device_of_workers
from fedmem.execution.measuring import estimates_of
from fedmem.execution.measuring import measure as measure
from fedmem.execution.notebook import notebook_listeners
from fedmem.execution.phases import phase_record
from fedmem.federation.parameter_counts import count_parameters
from fedmem.guards.guarding import Rescuing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmem.contracts.evidence import TrainedBank
    from fedmem.execution.backends import Backend
    from fedmem.execution.shard_store import Shards
    from fedmem.scenario.scenario import Scenario
    from fedmem.training.executor import Executor


def run(
    scenario: Scenario,
    *,
    out: Path | str = "runs",
    force: bool = False,
    listeners: Sequence[Listener] = (),
    on: str | None = None,
) -> Path:
    """Run a scenario and return its folder, `<out>/<name>/<id>`.

    Args:
        scenario: The scenario.
        out: Where its folder goes.
        force: Run it again where it is finished.
        listeners: Each is called with every event (`fedmem.contracts.events`); a notebook without any shows progress.
        on: Where runs are trained: `forks` of this process, `processes` that are started for it, `ray` or
            `ray:ADDRESS`. The measurements are the same. By default what the variable FEDMEM_ON says, or `forks`.

    Guarantees:

    - of a scenario with phases, all are run one after the other, each into a folder of its own; the last is returned;
    - a finished run is returned as it is unless `force`. It is refused where the code that makes it or a file that it
      reads has changed since;
    - whether the results can be written is tried before anything is trained;
    - the folder appears when everything has been measured, never before;
    - a bank of more runs than `speed.shard` keeps those that are done. If it is interrupted or killed at any moment,
      the same call goes on from there, to the same measurements;
    - the same scenario on the same machine with the same executor and thread count gives the same measurements.

    Errors: `ScenarioError` where the data cannot hold what is asked for. `RunError` where a client, the strategy or a
    measurement fails. `FolderError` where the results cannot be written. `ListenerError` where a listener raises.
    """
    emit = emitter(listeners or notebook_listeners())
    try:
        with Rescuing():
            backend = backend_for(scenario, on)
            with auto_decided_once(lambda: device_of_workers(backend)):
                folder, trained = _run(scenario, out, force, emit, backend)
    except ListenerError:
        raise
    except FedmemError as error:
        emit(ScenarioFailed(error=str(error)))
        raise
    emit(ScenarioFinished(folder=str(folder), trained=trained))
    return folder


def backend_for(scenario: Scenario, on: str | None) -> Backend | None:
    """The backend of this name; None for `forks`.

    Errors: `ComponentError` for a name that is none, and where the scenario needs Flower's own runtime.
    """
    from fedmem.execution.backends import backend_of

    backend = backend_of(on)
    if backend is not None and scenario.speed.engine == "flower":
        raise ComponentError(
            "on",
            f"{backend.name} trains many runs at once, but engine: flower has processes of its own. Leave --on out, "
            "and name a cluster by speed.address; or use engine: lockstep",
        )
    return backend


def _run(
    scenario: Scenario, out: Path | str, force: bool, emit: Emit, backend: Backend | None = None
) -> tuple[Path, bool]:
    """The folder of a scenario, and whether it was trained for it."""
    from fedmem.results.folder import check_place, is_finished
    from fedmem.scenario.unfolding import last_phase

    scenario = with_required_noise(last_phase(scenario))
    folder = folder_of(scenario, out)
    if is_finished(folder) and not force:
        return serve_finished(scenario, folder), False
    try:
        check_place(folder, force=force)
    except FolderError:
        if force or not is_finished(folder):
            raise
        return serve_finished(scenario, folder), False  # finished by another process a moment ago
    if scenario.previous is not None:
        require_same_source(scenario)
        _run(scenario.previous, out, force, emit, backend)
    started = time.perf_counter()
    how: dict[str, Any] = {"force": force, "emit": emit, "backend": backend}
    return compute(scenario, build_federation(scenario, out), folder, started, **how), True


def folder_of(scenario: Scenario, out: Path | str) -> Path:
    """Where the results of a scenario go; of one with phases, those of the last."""
    from fedmem.scenario.unfolding import last_phase

    scenario = last_phase(scenario)
    with suppress(ComponentError, ScenarioError):  # reported when it is run
        scenario = with_required_noise(scenario)
    return Path(out) / scenario.name / scenario.id


def with_required_noise(scenario: Scenario) -> Scenario:
    """The same with what only its data decide: the noise of private clients for a target, where it is left open.

    So that file, id and folder are those of the number. Errors: `ScenarioError`, as `run`.
    """
    from fedmem.privacy.record_level import is_open
    from fedmem.results.provenance import provenance_of

    if not is_open(scenario.client):
        return scenario
    key = scenario.id, json.dumps(provenance_of(scenario))
    if key not in _SETTLED:
        _SETTLED[key] = with_noise(scenario, build_federation(scenario))
    return scenario.model_copy(update={"client": _SETTLED[key].client})


_SETTLED: dict[tuple[str, str], Scenario] = {}
"""By the id of what is left open, and its code and files, since every sweep asks for its folders again and again."""


def with_noise(scenario: Scenario, federation: Federation) -> Scenario:
    """The same for a federation that is built."""
    from fedmem.privacy import record_level

    try:
        return scenario.model_copy(update={"client": record_level.client_with_noise(scenario, federation)})
    except ComponentError as error:
        raise ScenarioError([scenario.place(Problem(path=error.path, message=error.message))]) from error


def compute(  # noqa: PLR0913 - all by name
    scenario: Scenario,
    federation: Federation,
    folder: Path,
    started: float,
    *,
    force: bool,
    emit: Emit = silent,
    executor: Executor | None = None,
    patience: float | None = None,
    backend: Backend | None = None,
) -> Path:
    """Run a scenario whose federation is built and whose place is free; by an executor of others, if one is given.

    Or by the workers of a `backend`.

    See `run`, which calls this, for guarantees and errors. `started` is when that was, by `time.perf_counter`. Another
    process that computes the same run is waited for, `patience` seconds at most, a moment by default; what it has
    finished is taken. Errors: also `BusyError` where it is not done by then.
    """
    from fedmem.execution.memory_budget import room_of
    from fedmem.execution.model_space import require_disk
    from fedmem.execution.shard_lock import claim
    from fedmem.privacy import record_level
    from fedmem.results.folder import explaining_disk, is_finished
    from fedmem.results.provenance import provenance_of
    from fedmem.scenario.caveats import caveats_with_data

    record_level.require(scenario, federation)
    # read before the training, during which files may change
    job = _Job(scenario, federation, folder, started, provenance_of(scenario), force)
    with explaining_disk(folder), claim(folder, force=force, patience=patience) as shards:
        if is_finished(folder) and not force:
            return folder  # by another process, while this one waited
        require_disk(scenario, federation, folder, shards.model_bytes())
        emit(
            ScenarioStarted(
                name=scenario.name,
                id=scenario.id,
                runs=scenario.runs,
                rounds=scenario.rounds,
                warnings=tuple(caveats_with_data(scenario, federation)),
            )
        )
        # saved models are stored shard by shard
        saves = scenario.save.models is not None
        room = room_of(scenario, federation)
        divided = saves or scenario.runs > room.shard or shards.has_shards or backend is not None
        try:
            _compute(job, shards if divided else None, emit, executor, backend)
        except FolderError:
            if force or not is_finished(folder):
                raise  # else by another process, on a file system without locks
    return folder


def serve_finished(scenario: Scenario, folder: Path) -> Path:
    """A finished run as it is, without shards, if neither its code nor the files that it reads have changed.

    Errors: `FolderError` that names what has changed.
    """
    from fedmem.execution.shard_lock import claim
    from fedmem.execution.shard_store import place_of
    from fedmem.results.provenance import changed_inputs
    from fedmem.results.read import read

    manifest = read(folder).manifest
    other = changed_inputs(scenario, manifest) or changed_data(scenario, manifest)
    if other:
        raise FolderError(
            f"{folder} was made when the content of {', '.join(other)} was another; run again with --force, or look "
            f"at the old results with: fedmem report {folder}"
        )
    if place_of(folder).exists():
        with suppress(FolderError, OSError), claim(folder, patience=0.0):
            pass
    return folder


@dataclass(frozen=True)
class _Job:
    """A scenario that is to be run: its federation, its place, when that began, and what code and files make it."""

    scenario: Scenario
    federation: Federation
    folder: Path
    started: float
    provenance: Mapping[str, Mapping[str, str]]
    force: bool


def _compute(
    job: _Job, shards: Shards | None, emit: Emit, executor: Executor | None, backend: Backend | None = None
) -> None:
    """Train, estimate, write."""
    from fedmem.execution import positive_control
    from fedmem.execution.bank import simulate
    from fedmem.execution.sharding import Division, train
    from fedmem.reporting.measures import measures_to_store
    from fedmem.reporting.summarise import finish_folder
    from fedmem.results.conditions import condition_of
    from fedmem.results.write import Results, write_run
    from fedmem.training.stacked import stack

    scenario, federation = job.scenario, job.federation
    if shards is None:
        simulated = simulate(scenario, federation, emit=emit, executor=executor)
        division = Division(shards=(scenario.runs,), resumed=0, workers=simulated.workers)
    else:
        with nullcontext() if backend is None else backend.connect():
            simulated, division = train(scenario, federation, shards, emit=emit, executor=executor, backend=backend)
    emit(StageStarted(text="estimating"))
    trained = time.perf_counter()
    measurements = [*simulated.measurements, *estimates_of(scenario, simulated.bank, simulated.measurements)]
    if positive_control.audit_of(scenario) is not None:
        emit(StageStarted(text="training the positive control of the audit, without noise"))
    checked = positive_control.control(scenario, federation, measurements, simulated.pilot)
    measurements += [] if checked is None else [checked.row]
    estimated = time.perf_counter()
    total = estimated - job.started - (0.0 if executor is None else executor.waiting_seconds)
    emit(StageStarted(text="writing"))
    write_run(
        job.folder,
        Results(
            scenario_yaml=scenario.to_yaml(),
            manifest={
                **_manifest(job, simulated, measurements, estimated - trained, total),
                **job.provenance,
                "data": data_digest(scenario, federation),
                "positive_control": None if checked is None else checked.as_record(),
                "measures": measures_to_store(scenario),
                **({"initial_weights": list(federation.initial_notes)} if federation.initial_notes else {}),
                **({"parameters": counts} if (counts := count_parameters(federation, scenario.client)) else {}),
                "shards": {"runs": division.shards, "resumed": division.resumed, "workers": division.workers},
            },
            measurements=measurements,
            bank=simulated.bank,
            federation=federation,
            reconstructions=simulated.reconstructions,
            params=stack(simulated.params) if scenario.save.params else None,
            models={} if shards is None else shards.models(),
            condition=condition_of({"batches": scenario.batches}),
        ),
        force=job.force,
        draw=finish_folder,
    )


def _manifest(
    job: _Job, simulated: TrainedBank, measurements: Sequence[Measurement], estimating: float, total: float
) -> dict[str, Any]:
    """All that the bytes of the results depend on, and what the run cost."""
    from fedmem.estimation.learning import check_learning, learning_warnings
    from fedmem.privacy import guaranteed_bounds, mechanism_alarms, record_level
    from fedmem.privacy.spending import spending_record
    from fedmem.results.provenance import commit, versions
    from fedmem.scenario.caveats import caveats_with_data

    scenario = job.scenario
    data, binary = job.federation, job.federation.modality.is_binary
    learnings = tuple(check_learning(simulated.bank, data.test, data.population, binary=binary))
    return {
        "name": scenario.name,
        "id": scenario.id,
        "seed": scenario.seed,
        "engine": scenario.speed.engine,
        "executor": simulated.executor,
        "server": simulated.server,
        "threads": scenario.speed.threads,
        "device": simulated.device,
        "card": simulated.card,
        "precision": scenario.speed.precision,
        "tracing": {"steps": "client.step" not in simulated.untraced, "untraced": dict(simulated.untraced)},
        "runs": scenario.runs,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions(scenario.speed.engine),
        "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {**simulated.seconds, "estimating": estimating, "total": total},
        "pilot": _pilot(scenario, simulated),
        **({"phase": phase} if (phase := phase_record(scenario)) else {}),
        "privacy": spending_record(scenario, simulated.bank, record_level.largest_epsilon(scenario, job.federation)),
        "learning": [vars(learning) for learning in learnings],
        "warnings": [*caveats_with_data(scenario, job.federation), *learning_warnings(learnings)],
        "alarms": [
            *guaranteed_bounds.alarms(scenario, measurements),
            *mechanism_alarms.alarms(scenario, measurements),
            *_alarms(simulated),
        ],
    }


def _pilot(scenario: Scenario, simulated: TrainedBank) -> dict[str, Any] | None:
    """The run that picked the cohorts of all others, and that nothing was estimated from."""
    pilot = simulated.pilot
    if pilot is None:
        return None
    return {"run": scenario.runs, "clients": pilot.clients, "failed": pilot.failed, "seconds": pilot.seconds}


def _alarms(simulated: TrainedBank) -> list[str]:
    """Facts that a reader must know first: diverged models, and tolerated failures of clients."""
    import numpy as np

    alarms = []
    # A model is lost if it is on any set, so that it is reported for a scenario without audit examples too.
    has_diverged: dict[tuple[int, str], NDArray[Any]] = {}
    for evidence in simulated.bank.evidence:
        place = (evidence.round, evidence.level)
        here = ~np.isfinite(evidence.margin).all(axis=1)
        has_diverged[place] = np.logical_or(here, has_diverged.get(place, here))
    for (round_number, level), models in has_diverged.items():
        if models.any():
            alarms.append(
                f"round {round_number}, level {level}: {int(models.sum())} of {len(models)} models have "
                "diverged (their outputs are not numbers); lower client.lr"
            )
    failed = [part for part in simulated.bank.participation if part.failed]
    if failed:
        alarms.append(f"{len(failed)} of {len(simulated.bank.participation)} client rounds failed and were left out")
    return alarms
