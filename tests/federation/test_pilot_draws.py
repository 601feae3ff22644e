"""Tests of `fedmem/federation/pilot_draws.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.execution.run import run
from fedmem.federation.build import build
from tests.execution.pilot_helpers import GREEDY, small
from tests.narrowing import present
from tests.tiny import tiny


@pytest.mark.parametrize(
    "changes",
    [{}, {"initial_weights": "per_run"}, {"leave_out": {"clients": 3}}, {"exclusion": "remove"}],
    ids=["plain", "own weights", "clients left out", "outs missing"],
)
def test_a_pilot_changes_nothing_of_the_runs_that_are_analysed(changes: dict[str, Any]) -> None:
    without, led = build(tiny(**changes)), build(tiny(**GREEDY, **changes))
    whole = led.pilot
    assert without.pilot is None
    assert whole is not None
    np.testing.assert_array_equal(led.audit.is_in, without.audit.is_in)
    np.testing.assert_array_equal(led.replacement, without.replacement)
    np.testing.assert_array_equal(led.store.inputs, without.store.inputs)
    assert whole.audit.runs == led.audit.runs + 1 == 5
    np.testing.assert_array_equal(whole.audit.is_in[:4], led.audit.is_in)
    for round_number in (1, 4):
        for client in range(5):
            for number in range(4):
                expected = without.rows(number, client, round_number)
                np.testing.assert_array_equal(led.rows(number, client, round_number), expected)
            if "exclusion" not in changes:
                assert len(whole.rows(4, client, round_number)) == len(build(tiny()).rows(0, client, round_number))
    if "initial_weights" in changes:
        assert len(led.initials) == 4
        assert len(whole.initials) == 5
    if "leave_out" in changes:
        assert whole.audit.client_in is not None
        assert whole.audit.client_in[4].all()
        assert not present(led.audit.client_in).all()


def test_pilot_coins_are_fair_and_independent_of_the_runs() -> None:
    coins, shares = [], []
    for seed in range(40):
        whole = build(tiny(**GREEDY, seed=seed)).pilot
        assert whole is not None
        coins.append(whole.audit.is_in[4])
        shares.append((whole.audit.is_in[:4] == whole.audit.is_in[4]).mean())
    assert abs(np.mean(coins) - 0.5) < 4 * 0.5 / np.sqrt(np.size(coins))
    assert abs(np.mean(shares) - 0.5) < 0.03


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one shard."""
    return run(small(), out=tmp_path_factory.mktemp("whole"))
