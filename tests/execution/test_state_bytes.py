"""Tests of `fedmem/execution/state_bytes.py`."""

from __future__ import annotations

import pytest

from fedmem.federation import build as federations
from fedmem.strategies.scaffold import Scaffold
from tests.execution.memory_plan_helpers import held
from tests.narrowing import instance
from tests.tiny import tiny


def test_tables_of_strategies_are_counted_per_client() -> None:
    """(N + 1) P of scaffold and feddyn, N P of foolsgold, in float32; of a tree one float64 node for each level."""
    model = held().model
    assert held().tables == held().remembered == held().example_gradients == 0
    for kind, models in (("scaffold", 5 + 1), ("feddyn", 5 + 1), ("foolsgold", 5)):
        assert held(strategy={"kind": kind}).tables == pytest.approx(models * model, rel=0.05)
    everyone = {"sampler": {"kind": "everyone"}, "rounds": 12}
    tree = held(strategy={"kind": "dp_ftrl", "expected_cohort_size": 5.0}, **everyone)
    assert tree.tables == pytest.approx(4 * 2 * model, rel=0.05)
    # what strategies really end with
    strategy = instance(tiny(strategy={"kind": "scaffold"}).strategy, Scaffold)
    before = {name: value[None] for name, value in federations.build(tiny()).initial.items()}
    state = strategy.state(before, 5)
    assert held(strategy={"kind": "scaffold"}).tables == sum(v.numel() * v.element_size() for v in state.values())


def test_client_state_is_counted_for_clients_that_participated() -> None:
    model = held().model
    own = sum(v.numel() * 4 for name, v in federations.build(tiny()).initial.items() if name.startswith("output"))
    # layers of one's own wait at the client and are remembered by whoever reads the aggregate
    assert held(client={"kind": "fedper"}).remembered == 5 * 2 * own
    assert held(client={"kind": "fedper"}, rounds=1, observe={}).remembered == 3 * 2 * own
    assert held(client={"kind": "top_k"}).remembered == 5 * model
