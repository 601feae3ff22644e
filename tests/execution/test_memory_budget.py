"""Tests of `fedmem/execution/memory_budget.py`."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fedmem.errors import ScenarioError
from fedmem.execution import memory_budget, memory_plan
from fedmem.execution.memory_budget import reduce_to_budget, room_of, unlimited_plan
from fedmem.execution.memory_plan import MemoryLimits, needs_of
from fedmem.federation import build as federations
from fedmem.scenario.loading import parse_scenario
from tests.execution.memory_plan_helpers import NEEDS, ROOM, training
from tests.narrowing import present
from tests.tiny import tiny


def test_room_that_fits_the_budget_is_unchanged() -> None:
    assert reduce_to_budget(NEEDS, ROOM, training(NEEDS, ROOM)) == ROOM


@pytest.mark.parametrize("part", [0.9, 0.6, 0.3, 0.2])
def test_a_budget_is_kept_and_nothing_grows(part: float) -> None:
    budget = part * training(NEEDS, ROOM)
    room = reduce_to_budget(NEEDS, ROOM, budget)
    assert training(NEEDS, room) <= budget
    for name, value in vars(room).items():
        assert 1 <= value <= getattr(ROOM, name)
    assert room == reduce_to_budget(NEEDS, ROOM, budget), "the same needs and budget give the same room"


def test_smaller_budgets_never_leave_more_room() -> None:
    least = training(NEEDS, MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1))
    rooms = [reduce_to_budget(NEEDS, ROOM, least * factor) for factor in (1.0, 1.1, 1.5, 2, 3, 5, 9)]
    for name in vars(ROOM):
        sizes = [getattr(room, name) for room in rooms]
        assert sizes == sorted(sizes)
    assert rooms[0].shard == rooms[0].workers == rooms[0].chunk(NEEDS) == 1


def test_largest_need_is_cut_first_and_processes_last() -> None:
    looked = replace(NEEDS, wide=10**6, model=1000)
    room = reduce_to_budget(looked, ROOM, 0.5 * training(looked, ROOM))
    assert (room.stack_bytes, room.shard, room.workers) == (ROOM.stack_bytes, ROOM.shard, ROOM.workers)
    assert room.forward_rows < ROOM.rows(looked)
    wide = replace(NEEDS, cohort=1000)
    room = reduce_to_budget(wide, ROOM, 0.6 * training(wide, ROOM))
    assert (room.shard, room.forward_rows, room.workers) == (8, ROOM.forward_rows, ROOM.workers)
    one = replace(NEEDS, cohort=1, evidence=0, wide=0, batch=0, classes=0, runs=1)
    single = MemoryLimits(stack_bytes=one.model, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=2)
    assert reduce_to_budget(one, single, training(one, single) - 1) == replace(single, workers=1)


def test_too_small_a_budget_is_an_error_with_numbers_and_a_fix() -> None:
    least = MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1)
    with pytest.raises(ScenarioError) as caught:
        reduce_to_budget(NEEDS, ROOM, training(NEEDS, least) - 1)
    (problem,) = caught.value.problems
    assert problem.path == "speed.memory"
    wanted = float(present(re.search(r"Raise it to at least ([\d.]+)", problem.message))[1])
    reduce_to_budget(NEEDS, ROOM, wanted * 1e9)  # what is asked for is enough
    with pytest.raises(ScenarioError):
        reduce_to_budget(NEEDS, ROOM, (wanted - 0.2) * 1e9)
    assert "models of one round" in problem.message
    assert "a smaller cohort" in problem.message
    rows = replace(NEEDS, data=10**10)
    with pytest.raises(ScenarioError, match=r"fewer rows or references"):
        reduce_to_budget(rows, ROOM, 10**9)


def test_room_follows_the_budget_and_errors_point_into_the_file() -> None:
    scenario = tiny(model={"kind": "mlp", "hidden": [2000, 1000]}, runs=8, speed={"shard": 8, "workers": 3})
    federation = federations.build(scenario)
    free = room_of(scenario, federation)
    assert (free.shard, free.workers) == (8, 1), "one shard occupies one process"
    needs = needs_of(scenario, federation, 3)
    budget = (training(needs, free) - 10**8) / 1e9
    tight = tiny(model={"kind": "mlp", "hidden": [2000, 1000]}, runs=8, speed={"shard": 8, "memory": budget})
    assert room_of(tight, federation).shard < 8
    text = "{rounds: 2, clients: 3, dataset: {kind: synthetic}, model: {kind: logistic},\n speed: {memory: 0.01}}"
    small = parse_scenario(text)
    with pytest.raises(ScenarioError) as caught:
        room_of(small, federations.build(small))
    assert caught.value.problems[0].line == 2


def test_workers_do_not_exceed_shards_or_cores() -> None:
    assert unlimited_plan(NEEDS, 16, 5).workers == 2
    assert unlimited_plan(NEEDS, 100, 5) == replace(unlimited_plan(NEEDS, 32, 1), shard=32)
    assert unlimited_plan(NEEDS, 1, 5).workers == 5


def test_a_large_bank_is_divided_so_that_every_worker_has_some() -> None:
    """One shard could hold all runs; below a few thousand trainings it does."""
    for rounds, shard in ((10, 16), (1000, 8)):
        scenario = tiny(runs=16, rounds=rounds, observe={}, speed={"workers": 2})
        assert memory_budget.fit_to_budget(scenario, replace(NEEDS, runs=16, cohort=3)).shard == shard


def test_client_tables_are_cut_by_fewer_runs_at_once() -> None:
    needs = replace(NEEDS, tables=20 * NEEDS.model * 50, runs=16)
    room = replace(ROOM, shard=16)
    grown = training(needs, room) - training(replace(needs, tables=0), room)
    assert grown == 16 * memory_plan.TABLES * needs.tables * room.workers
    assert reduce_to_budget(needs, room, 0.6 * training(needs, room)).shard < 16
    least = MemoryLimits(stack_bytes=1, forward_rows=memory_plan.MIN_ROWS, shard=1, workers=1)
    with pytest.raises(ScenarioError, match="or another strategy or client"):
        reduce_to_budget(needs, ROOM, training(needs, least) - 1)
