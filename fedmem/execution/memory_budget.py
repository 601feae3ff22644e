"""How training is cut into shards and stacks that fit a memory budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from fedmem.errors import Problem, ScenarioError
from fedmem.execution.auto import SPLIT, workers_of
from fedmem.execution.devices import chosen_device
from fedmem.execution.memory_plan import (
    EACH,
    FORWARD_BYTES,
    MIN_ROWS,
    OUTPUTS,
    POSITIONS,
    STEP,
    MemoryLimits,
    MemoryNeeds,
    needs_of,
    phases,
)
from fedmem.training.executor import FORWARD_ROWS, STACK_BYTES
from fedmem.training.free_memory import memory_bytes
from fedmem.wording import bytes_text

if TYPE_CHECKING:
    from fedmem.contracts.federation import Federation
    from fedmem.scenario.scenario import Scenario


ADAPTED_BYTES = 1 << 30
"""Memory of a stack of clients that train a small part of a large network."""


def room_of(scenario: Scenario, federation: Federation) -> MemoryLimits:
    """How the training of a scenario is cut: to `speed.memory`, if that is given.

    Errors: `ScenarioError` at `speed.memory` if one client and run at a time are still too much for it.
    """
    from fedmem.federation.roster import Cohorts

    needs = needs_of(scenario, federation, Cohorts.draw(scenario, federation).largest_cohort)
    return fit_to_budget(scenario, needs)


def cut_of(scenario: Scenario, federation: Federation) -> MemoryLimits:
    """The same as far as it matters to who trains and looks at models; without a budget nobody needs to be counted."""
    if scenario.speed.memory is not None:
        return room_of(scenario, federation)
    return unlimited_plan(needs_of(scenario, federation, 1), 1, 1)


def fit_to_budget(scenario: Scenario, needs: MemoryNeeds) -> MemoryLimits:
    """The same for needs that are known.

    Errors: `ScenarioError` also where a single batch cannot fit, whatever else is made smaller.
    """
    speed = scenario.speed
    problem = too_wide(scenario, needs)
    if problem is not None:
        raise ScenarioError([scenario.place(problem)])
    workers = workers_of(scenario)
    many = needs.runs * needs.cohort * scenario.rounds >= SPLIT
    room = unlimited_plan(needs, min(speed.shard, -(-needs.runs // workers)) if many else speed.shard, workers)
    if speed.memory is None:
        return room
    try:
        return reduce_to_budget(needs, room, speed.memory * 1e9)
    except ScenarioError as error:
        raise ScenarioError([scenario.place(problem) for problem in error.problems]) from error


def one_batch(needs: MemoryNeeds, batch: int) -> int:
    """Bytes that one client takes for a step with so many rows."""
    rows = batch if needs.stackable else min(batch, needs.max_rows)
    return (
        STEP * needs.model + 2 * rows * (needs.row + needs.saved) + POSITIONS * batch + EACH * needs.example_gradients
    )


def too_wide(scenario: Scenario, needs: MemoryNeeds) -> Problem | None:
    """A batch that cannot fit into the memory of the machine, or of its GPU; None where it does."""
    memory = memory_bytes(chosen_device(scenario))
    if one_batch(needs, needs.batch) <= memory:
        return None
    has_batch_size = any(item.name == "batch_size" for item in fields(scenario.client))  # type: ignore[arg-type]
    fits, fails = 0, needs.batch
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if one_batch(needs, middle) <= memory else (fits, middle)
    remedy = f"lower it to at most {fits}" if fits else "use a smaller model"
    return Problem(
        path="client.batch_size" if has_batch_size else "client",
        message=f"a batch of {needs.batch} rows takes {bytes_text(one_batch(needs, needs.batch))} while one client "
        f"trains, but there are {bytes_text(memory)} of memory; {remedy}",
    )


def largest_phase(bytes_by_phase: Mapping[str, Mapping[str, int]]) -> str:
    """The phase at whose peak most memory is taken."""
    return max(bytes_by_phase, key=lambda phase: sum(bytes_by_phase[phase].values()))


def unlimited_plan(needs: MemoryNeeds, shard: int, workers: int) -> MemoryLimits:
    """How training is cut where memory is no question."""
    together = min(shard, needs.runs)
    shards = -(-needs.runs // together)
    bound = FORWARD_BYTES // max(1, needs.wide + 8 * OUTPUTS * needs.classes)
    stack = STACK_BYTES
    if needs.frozen:
        # small adapters of a large network: what a pass leaves for the backward pass bounds the stack
        one = STEP * needs.model + 2 * needs.batch * (needs.row + needs.saved)
        stack = min(stack, (needs.model + needs.example_gradients) * max(1, ADAPTED_BYTES // one))
    return MemoryLimits(
        stack_bytes=stack,
        forward_rows=max(MIN_ROWS, min(FORWARD_ROWS, bound)),
        shard=together,
        workers=max(1, min(workers, shards)),
    )


def reduce_to_budget(needs: MemoryNeeds, room: MemoryLimits, budget: float) -> MemoryLimits:
    """The room cut down until training takes at most `budget` bytes: again and again, what takes most is halved.

    Guarantees:

    - a pure function: the same needs and budget give the same room;
    - nothing is larger than in `room`, and where that fits it is handed back as it is;
    - processes are given up last, since they cost time and nothing else does as much.

    Errors: `ScenarioError` at `speed.memory` where one run and one client at a time in one process are still too much.
    """
    while sum(phases(needs, room)["training"].values()) > budget:
        halved = _halve_largest(needs, room)
        if halved is None:
            raise ScenarioError([_too_much(needs, room, budget)])
        room = halved
    return room


def _halve_largest(needs: MemoryNeeds, room: MemoryLimits) -> MemoryLimits | None:
    """The room with half of what takes most and can be less; None where nothing can."""
    training = phases(needs, room)["training"]
    smaller = {
        "models looked at": replace(room, forward_rows=max(MIN_ROWS, room.rows(needs) // 2)),
        "clients in training": replace(
            room, stack_bytes=(needs.model + needs.example_gradients) * max(1, room.chunk(needs) // 2)
        ),
        "models of one round": replace(room, shard=-(-room.shard // 2)),
        "kept from round to round": replace(room, shard=-(-room.shard // 2)),
    }
    helps = {
        name: sum(phases(needs, less)["training"].values()) < sum(training.values()) for name, less in smaller.items()
    }
    for name in sorted(smaller, key=lambda name: -training[name]):
        if helps[name]:
            return smaller[name]
    return replace(room, workers=room.workers - 1) if room.workers > 1 else None


def _too_much(needs: MemoryNeeds, room: MemoryLimits, budget: float) -> Problem:
    """Why a budget cannot be kept, and what would help, most first."""
    training = phases(needs, room)["training"]
    listed = ", ".join(
        f"{name} {bytes_text(size)}" for name, size in sorted(training.items(), key=lambda item: -item[1])
    )
    remedies = {
        "data": "fewer rows or references",
        "outputs of frozen layers": "speed.cache_prefix: off",
        "models of one round": "a smaller cohort (sampler) or model" + " or observe.levels: [global]" * needs.watched,
        "clients in training": "a smaller client.batch_size or model",
        "kept from round to round": "fewer clients, a smaller model, or another strategy or client",
        "models looked at": "a smaller model",
        "evidence": "fewer observed rounds, a smaller test set or population",
    }
    main_remedy = max(remedies, key=lambda name: training.get(name, 0))
    min_budget = -(-sum(training.values()) // 10**8) / 10
    return Problem(
        path="speed.memory",
        message=f"{budget / 1e9:g} GB are too little: with one run, one client and {room.forward_rows} rows at a time "
        f"training takes {bytes_text(sum(training.values()))} ({listed}). Raise it to at least {min_budget:g}, or use "
        f"{remedies[main_remedy]}",
    )
