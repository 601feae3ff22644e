"""The pilot: one more run, trained before all others, by whose losses and norms their cohorts are picked.

Under `roster: pilot` a sampler that looks at losses or norms is shown those of a run that is not analysed. The coins of
this run are drawn apart from all others. Participation in the analysed runs is therefore independent of their coins. At
every observed round an owner's model is there in all of them, half in and half out. The pilot is trained once, as a
whole and alone. Neither shards nor processes nor the engine change what it shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fedmem.contracts.sampler import Pilot
from fedmem.engines.lockstep import Lockstep
from fedmem.errors import RunError
from fedmem.execution.auto import server_of
from fedmem.training.client_work import LocalWork
from fedmem.training.executor import Executor

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


def follow(
    scenario: Scenario,
    federation: Federation,
    executor: Executor,
    on_round: Callable[[int], None] = lambda round_number: None,
) -> Pilot:
    """Train the pilot of a federation that has one, and note the clients it picked.

    The pilot is the run after the last, with a roster of its own. It is trained in this process whatever the engine,
    since the runtime of Flower gives the same bits. Clients that fail in it are lost to it alone, up to what the
    scenario tolerates.

    Errors: `RunError` where it fails.
    """
    assert federation.pilot is not None, "a federation is built with a pilot where its scenario has one"
    started = time.perf_counter()
    speed = scenario.speed.model_copy(update={"engine": "lockstep"})
    alone = scenario.model_copy(update={"roster": "per_run", "speed": speed})
    work = LocalWork(
        federation.pilot, scenario.client, scenario.training_seed, shared_batches=scenario.batches == "shared"
    )
    engine = Lockstep(alone, federation.pilot, executor, work, None, on_round)
    run = scenario.runs
    try:
        finished = engine.train([run], server_of(alone))
    except RunError as error:
        raise RunError(f"the pilot, which picks the cohorts of all runs: {error}") from error
    return Pilot(
        rounds=tuple(engine.picked_cohort(run, round_number) for round_number in range(1, scenario.rounds + 1)),
        failed=sum(part.failed for part in finished.participation),
        seconds=time.perf_counter() - started,
    )
