"""Tests of `fedmem/apps/assignment.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedmem import assign_canaries


def test_owners_stay_and_only_inclusion_is_drawn() -> None:
    plans = [assign_canaries(40, ["a", "b", "c"], seed) for seed in range(200)]
    assert {plan.owner for plan in plans} == {plans[0].owner}
    coins = np.array([plan.included for plan in plans])
    assert abs(coins.mean() - 0.5) < 4 * 0.5 / np.sqrt(coins.size)
    # independent between canaries and between runs: 40 and 200 columns of fair coins
    for table in (coins, coins.T):
        pairs = np.corrcoef(table.T)[np.triu_indices(table.shape[1], 1)]
        assert abs(pairs.mean()) < 0.02
    assert len({row.tobytes() for row in coins}) == 200


def test_with_runs_each_canary_is_in_half_of_them() -> None:
    coins = np.array([assign_canaries(30, range(4), seed, runs=16).included for seed in range(16)])
    assert (coins.sum(axis=0) == 8).all()
    assert len({column.tobytes() for column in coins.T}) > 25


def test_clients_are_given_their_included_canaries_alone() -> None:
    plan = assign_canaries(9, range(3), 5)
    rows = [plan.rows_of(client).tolist() for client in range(3)]
    assert sorted(row for part in rows for row in part) == np.flatnonzero(plan.included).tolist()
    assert all(row % 3 == client for client, part in enumerate(rows) for row in part)
    assert plan.rows_of("1").tolist() == rows[1]


@pytest.mark.parametrize("runs", [None, 16])
def test_sets_of_other_names_are_included_independently(runs: int | None) -> None:
    """Controls with the inclusion of the canaries would be no control: theirs would show what canaries do."""

    def coins(name: str) -> np.ndarray[Any, Any]:
        return np.array([assign_canaries(400, [0, 1], seed, runs=runs, name=name).included for seed in range(16)])

    canaries, controls, others = coins(""), coins("controls"), coins("others")
    assert (canaries == coins("")).all()
    for first, second in ((canaries, controls), (controls, others)):
        # 6400 pairs of fair coins agree half of the time
        assert abs((first == second).mean() - 0.5) < 4 * 0.5 / np.sqrt(first.size)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"canaries": 0}, "at least 1"),
        ({"clients": []}, "clients is empty"),
        ({"clients": [1, "1"]}, "names 1 twice"),
        ({"runs": 3}, "must be even"),
        ({"seed": 8, "runs": 8}, "seed 8 is none of the 8 runs"),
    ],
)
def test_impossible_assignments_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        assign_canaries(**{"canaries": 4, "clients": [0, 1], "seed": 0, **arguments})
