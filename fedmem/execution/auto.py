"""Which way is taken where a scenario leaves it open: by fixed tables, never by a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmem.contracts.model import is_trained_stacked
from fedmem.contracts.strategy import strategy_declaration
from fedmem.execution.devices import chosen_device, wants_gpu
from fedmem.processes import can_start, cores

if TYPE_CHECKING:
    from fedmem.contracts.training_mode import TrainingMode
    from fedmem.scenario.scenario import Scenario


SPLIT = 5000
"""From so many client trainings on, the runs of a bank are divided so that every worker has some.

This holds even if one shard could hold them all. With fewer trainings, dividing them costs more than it saves."""


def is_stacked(scenario: Scenario, mode: TrainingMode | None = None) -> bool:
    """Whether clients are trained as stacks; `auto` asks model and device (`is_trained_stacked`).

    On Flower's runtime clients are apart, and what looks at their models computes as they do. A network with running
    statistics that training updates, or one that draws, is never stacked: `mode` says so of its federation.
    """
    if scenario.speed.engine == "flower" or (mode is not None and mode.differs):
        return False
    if scenario.speed.executor != "auto":
        return scenario.speed.executor == "stacked"
    # the device is asked for where it matters, since a cluster may have to say what it has
    return scenario.model.stackable or is_trained_stacked(scenario.model, chosen_device(scenario))


def server_of(scenario: Scenario) -> str:
    """`messages` or `rule`; `auto` applies the rule of a strategy that has one: the same results, by test, sooner.

    A strategy that picks its own cohort does so while it writes messages, and Flower's runtime carries nothing else.
    """
    if scenario.speed.server != "auto":
        return scenario.speed.server
    ruled = strategy_declaration(scenario.strategy).rule is not None and scenario.cohort_by == "sampler"
    return "rule" if ruled and scenario.speed.engine == "lockstep" else "messages"


def workers_of(scenario: Scenario) -> int:
    """How many processes may train: as many as the scenario says, or one for each core that this process may use.

    They are forked, or started afresh where the system cannot fork. One where this process must not have others, and
    where the engine or a GPU does the work of many already.
    """
    speed = scenario.speed
    if not can_start() or speed.engine != "lockstep" or wants_gpu(scenario):
        return 1
    return max(1, cores() // speed.threads) if speed.workers == "auto" else speed.workers
