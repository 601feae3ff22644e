"""The cost of a study: counted over its cells, timed on a few rounds, and nothing left behind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedmem.errors import Problem, ScenarioError
from fedmem.execution.plan import plan
from fedmem.studies.cost import cost_of
from fedmem.studies.grid import cross, settings_of
from tests.studies.compare_helpers import small


def test_cost_is_that_of_all_cells_and_scales_with_steps(tmp_path: Path) -> None:
    cells = cross(small(runs=2, rounds=3), settings_of({"client.epochs": ["1", "40"]}), (0, 1))
    cost = cost_of(cells, (0, 1), tmp_path)
    plans = [plan(cell.scenario) for cell in cells]
    assert (cost.scenarios, cost.finished, cost.runs) == (4, 0, 8)
    assert cost.steps == sum(each.steps for each in plans)
    assert cost.memory == max(sum(each.memory[each.moment].values()) for each in plans)
    assert cost.disk == sum(sum(each.disk.values()) for each in plans)
    few, many = (cost_of(cells[first : first + 2], (0, 1), tmp_path) for first in (0, 2))
    assert 0 < few.seconds < many.seconds < 600
    assert not list(tmp_path.iterdir())


def test_what_is_not_timed_is_unknown(tmp_path: Path) -> None:
    assert math.isnan(cost_of(cross(small(runs=2, rounds=2), [()], (0,)), (0,), tmp_path).seconds)


def test_problems_of_other_cells_are_reported_too(tmp_path: Path) -> None:
    cells = cross(small(injections=[{"kind": "random_pattern", "per_client": 500}]), [()], (0,))
    with pytest.raises(ScenarioError) as error:
        cost_of(cells, (0,), tmp_path, [Problem(path="x", message="first")])
    first, second = error.value.problems
    assert (first.message, "rows minus" in second.message) == ("first", True)
