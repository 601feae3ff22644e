"""Which executor and device train a bank."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from fedmem.contracts.federation import Federation
from fedmem.engines.client_settings import client_settings
from fedmem.execution.auto import is_stacked, workers_of
from fedmem.execution.devices import device_of
from fedmem.execution.memory_budget import cut_of
from fedmem.processes import can_fork
from fedmem.training.constituents import executor_by_shard
from fedmem.training.executor import Executor, Settings
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Stacked
from fedmem.training.worker_pool import PooledExecutor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from fedmem.scenario.scenario import Scenario


def executor_of(scenario: Scenario, federation: Federation, workers: int | None = None) -> Executor:
    """The executor that trains the clients of a scenario and looks at models. Work that is not stacked is spread over
    `workers` forks, by default as many as the scenario says. Where the system cannot fork, this process does it.
    """
    device = device_of(scenario, federation)
    room = cut_of(scenario, federation)
    stacks = room.stack_bytes if device == "cpu" or scenario.speed.memory else 0
    settings = replace(
        client_settings(scenario, federation),
        seconds=scenario.speed.seconds_per_client,
        device=device,
        stack_bytes=stacks,
        forward_rows=room.forward_rows,
    )
    parts = scenario.client, federation.store
    kind = Stacked if is_stacked(scenario, federation.mode) else OneByOne

    def make(network: nn.Module, of_network: Settings) -> Executor:
        return kind(network, *parts, of_network)

    count = workers_of(scenario) if workers is None else workers
    if kind is Stacked or count == 1 or not can_fork():
        return executor_by_shard(federation.model, settings, make)

    def make_pool(network: nn.Module, of_network: Settings) -> Executor:
        return PooledExecutor(network, *parts, of_network, workers=count, threads=scenario.speed.threads)

    # a second pool would hold the pipes of the first open
    return executor_by_shard(federation.model, settings, make_pool, make)


@contextmanager
def executor_in_use(scenario: Scenario, federation: Federation, shared_executor: Executor | None) -> Iterator[Executor]:
    """The one that is given, or one that is made and closed here."""
    executor = shared_executor or executor_of(scenario, federation)
    try:
        yield executor
    finally:
        if shared_executor is None:
            executor.close()
