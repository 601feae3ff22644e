"""Twins and shared batches in a federation, in training and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.results.read import read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.training.stacked import LocalWork
from tests.execution.pilot_helpers import GREEDY
from tests.tiny import tiny


def margins(scenario: Scenario, out: Path) -> FloatArray:
    """(R, m) of the last aggregates on the audit examples."""
    bank = read_bank(run(scenario, out=out))
    block = next(one for one in bank.evidence[::-1] if one.set == "audit" and one.level == "global")
    return block.margin[np.argsort(block.run)]


@pytest.mark.parametrize(
    "changes",
    [{}, {"leave_out": {"clients": "all"}}, {"initial_weights": "per_run"}, {"exclusion": "remove"}, GREEDY],
    ids=["plain", "clients left out", "own weights", "outs missing", "pilot"],
)
def test_first_runs_are_those_without_twins(changes: dict[str, Any]) -> None:
    alone, both = build(tiny(**changes, runs=4)), build(tiny(**changes, runs=8, twins=2))
    assert both.audit.coin_rows.tolist() == [0, 1, 2, 3] * 2
    assert alone.audit.coin_row is None
    for half in (slice(0, 4), slice(4, 8)):
        np.testing.assert_array_equal(both.audit.is_in[half], alone.audit.is_in)
        np.testing.assert_array_equal(both.replacement[half], alone.replacement)
    if alone.audit.client_in is not None and both.audit.client_in is not None:
        np.testing.assert_array_equal(both.audit.client_in[4:], alone.audit.client_in)
    for client in range(5):
        np.testing.assert_array_equal(both.rows(1, client, 1), both.rows(5, client, 1))
    if "initial_weights" in changes:
        first, other = (next(iter(both.initial_of(number).values())).numpy() for number in (0, 4))
        assert not np.array_equal(first, other)


def test_twins_train_on_the_same_rows_in_other_batches(tmp_path: Path) -> None:
    alone = margins(tiny(runs=4), tmp_path)
    twins = tiny(runs=8, twins=2, estimators=[{"kind": "memorisation"}], speed={"shard": 3, "workers": 1})
    both = margins(twins, tmp_path)
    np.testing.assert_array_equal(both[:4], alone)
    assert (both[4:] != alone).any(1).all()
    (folder,) = (tmp_path / "tiny").glob(f"{twins.id}*")
    assert read_bank(folder).audit.coin_rows.tolist() == [0, 1, 2, 3] * 2
    stored = fedmem.read(folder)
    before, headline = stored.values("memorisation"), stored.summary().headline
    assert fedmem.read(fedmem.measure(folder)).values("memorisation").equals(before)
    assert "8 runs with 2 twins each" in headline


def test_shared_batches_are_those_of_the_first_run() -> None:
    scenario = tiny(batches="shared", injections=[])
    federation = build(scenario)
    for shared in (True, False):
        work = LocalWork(federation, scenario.client, scenario.seed, shared_batches=shared)
        first, second = (work.task(number, 2, 1, {}).batches for number in (0, 3))
        assert np.array_equal(first, second) is shared
        assert not np.array_equal(first, work.task(0, 3, 1, {}).batches), "another round has other batches"
        plain = LocalWork(federation, scenario.client, scenario.seed)
        np.testing.assert_array_equal(first, plain.task(0, 2, 1, {}).batches)


def test_shared_batches_do_not_depend_on_shards(tmp_path: Path) -> None:
    """Only coins are left that could make runs differ."""
    changes: dict[str, Any] = {"injections": [{"kind": "typical", "per_client": 1}], "exclusion": "remove"}
    shared, own = margins(tiny(batches="shared", **changes), tmp_path), margins(tiny(**changes), tmp_path)
    np.testing.assert_array_equal(shared[0], own[0])
    assert (shared[1:] != own[1:]).any(1).all()
    in_shards = tiny(batches="shared", **changes, speed={"shard": 1, "workers": 1})
    np.testing.assert_array_equal(margins(in_shards, tmp_path / "shards"), shared)
