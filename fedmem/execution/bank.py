"""The R runs of a scenario: trained together, watched at every observed round, left behind as evidence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from fedmem.contracts.arrays import IntArray
from fedmem.contracts.attack import MembershipAttack, attack_declaration
from fedmem.contracts.events import Emit, RoundFinished, TrainingStarted, silent
from fedmem.contracts.evidence import Bank, Lost, TrainedBank, Transition
from fedmem.contracts.families import nested_components
from fedmem.contracts.federation import Federation
from fedmem.contracts.sampler import Pilot
from fedmem.engines._cohort_work import Finished
from fedmem.engines.lockstep import Lockstep
from fedmem.execution.auto import server_of
from fedmem.execution.devices import card_of
from fedmem.execution.executors import executor_in_use
from fedmem.execution.join_shards import join
from fedmem.execution.pilot import follow
from fedmem.execution.process_state import process_state
from fedmem.execution.relearning import evidence_before_forgetting
from fedmem.execution.unlearning import unlearn
from fedmem.observation.observer import _Observer
from fedmem.processes import share_processes
from fedmem.training.executor import Executor
from fedmem.training.stacked import LocalWork

if TYPE_CHECKING:
    from fedmem.scenario.scenario import Scenario


def simulate(
    scenario: Scenario,
    federation: Federation,
    *,
    emit: Emit = silent,
    runs: Sequence[int] | None = None,
    watch: bool = True,
    executor: Executor | None = None,
) -> TrainedBank:
    """Train the runs of a scenario (all of them, unless `runs` names some), gather their evidence and sum it up.

    With `watch=False` nothing is observed; the final parameters are the same to the last bit. `emit` passes on what
    happens. For `executor` see `gather`.
    """
    pilot = pilot_of(scenario, federation, emit, executor)
    emit(TrainingStarted(rounds=scenario.rounds, runs=scenario.runs if runs is None else len(runs)))
    gathered = gather(scenario, federation, emit=emit, runs=runs, watch=watch, pilot=pilot, executor=executor)
    return join([gathered], scenario.probes if watch else (), scenario.seed)


def gather(
    scenario: Scenario,
    federation: Federation,
    *,
    emit: Emit = silent,
    runs: Sequence[int] | None = None,
    watch: bool | Callable[[Sequence[Transition]], object] = True,
    lost: Lost | None = None,
    pilot: Pilot | None = None,
    executor: Executor | None = None,
) -> TrainedBank:
    """The same without summaries, which need all runs of the bank.

    The clients in `lost` are known to fail in another run and are dropped in these. The runs are then what they would
    be if all had been trained together. `pilot` is that of the scenario, if it has one. By default it is trained here.
    `executor` trains and evaluates models, and its maker closes it. By default one is made here. A function `watch` is
    shown the transitions of each observed round and level after they have been looked at.
    """
    pilot = pilot or pilot_of(scenario, federation, emit, executor)
    started = time.perf_counter()
    run_numbers = tuple(range(scenario.runs)) if runs is None else tuple(runs)
    state = process_state(scenario.speed.threads, flower=scenario.speed.engine != "flower")
    with state, executor_in_use(scenario, federation, executor) as executor:
        waited = executor.waiting_seconds
        before = evidence_before_forgetting(scenario, federation, run_numbers) if watch else ()
        federation, at_start = unlearn(scenario, federation, executor, run_numbers)
        work = LocalWork(
            federation, scenario.client, scenario.training_seed, shared_batches=scenario.batches == "shared"
        )
        save = watch if callable(watch) else None
        observer = _Observer(scenario, federation, executor, work, run_numbers, emit, save)
        ended = partial(RoundFinished, rounds=scenario.rounds, first=run_numbers[0], last=run_numbers[-1])

        def on_round(round_number: int) -> None:
            share, loss = observer.utility_of(round_number)
            emit(ended(round=round_number, accuracy=share, loss=loss))

        engine = _engine(scenario, federation, executor, work, observer if watch else None, on_round, pilot)
        server = server_of(scenario)
        # its workers rest while models are looked at
        with share_processes(executor.workers):
            finished = engine.train(run_numbers, server, lost or {})
        total = time.perf_counter() - started - (executor.waiting_seconds - waited)
    return TrainedBank(
        bank=Bank(
            audit=federation.audit,
            evidence=(*before, *(at_start if watch else ()), *observer.evidence),
            references=tuple(observer.references),
            participation=finished.participation,
            seed=scenario.seed,
            roster=scenario.roster,
            exclusion=scenario.exclusion,
            targets=targets_of(federation),
            inputs=inputs_of(scenario, federation),
            label_counts=federation.label_counts,
            signals=tuple(observer.signals),
        ),
        measurements=tuple(observer.measurements),
        reconstructions=observer.arrays,
        params=finished.params,
        executor=executor.name,
        server=server,
        workers=executor.workers,
        device=executor.device,
        seconds={"watching": observer.seconds, "training": total - observer.seconds},
        failures=finished.lost,
        untraced=executor.untraced_functions,
        pilot=pilot,
        card=card_of(executor.device),
    )


def targets_of(federation: Federation) -> dict[str, IntArray]:
    """The labels of the examples that are not audited, by set."""
    sets = {"test": federation.test, "population": federation.population}
    return {name: rows.labels for name, rows in sets.items() if name == "test" or len(rows)}


def inputs_of(scenario: Scenario, federation: Federation) -> dict[str, NDArray[Any]]:
    """The examples of the population, where a membership attack reads them; otherwise none."""
    parts = (part for estimator in scenario.estimators for _, part in nested_components(estimator, ""))
    attacks = (part for part in parts if isinstance(part, MembershipAttack))
    is_read = any("inputs" in attack_declaration(attack).reads for attack in attacks)
    return {"population": federation.population.inputs} if is_read else {}


def pilot_of(
    scenario: Scenario,
    federation: Federation,
    emit: Emit = silent,
    executor: Executor | None = None,
) -> Pilot | None:
    """Train the run by which the cohorts of all others are picked; None where a scenario has none.

    Without an `executor`, one is made and closed here.
    """
    if not scenario.has_pilot:
        return None
    emit(TrainingStarted(what="pilot", rounds=scenario.rounds, runs=1))
    ended = partial(RoundFinished, rounds=scenario.rounds, first=0, last=0)
    with process_state(scenario.speed.threads), executor_in_use(scenario, federation, executor) as executor:
        return follow(
            scenario,
            federation,
            executor,
            lambda round_number: emit(ended(round=round_number)),
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
