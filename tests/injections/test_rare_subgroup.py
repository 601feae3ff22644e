"""Tests of `fedmem/injections/rare_subgroup.py`."""

from __future__ import annotations

import numpy as np

from fedmem.federation import build
from fedmem.injections.rare_subgroup import RareSubgroup
from fedmem.injections.typical import Typical
from fedmem.seeding import stream
from tests.federation.build_helpers import scenario
from tests.injections.atypical_helpers import clean, plan


def test_rare_subgroup_is_reserved_from_clients_only() -> None:
    asked = scenario(injections=(RareSubgroup(of_class=2, clients=(3,), per_client=6), Typical()))
    built = build.build(asked)
    assert 2 in built.test.targets
    assert 2 in built.population.targets
    data = asked.dataset.load(stream(asked.seed, "dataset"))
    of_class = int((data.train.targets == 2).sum())
    assert built.counts["reserved_rows"] == of_class - int((built.population.targets == 2).sum()) - 6
    mine = built.audit.kind == "rare_subgroup"
    assert set(built.audit.owner[mine].tolist()) == {3}
    for run in range(4):
        for client in range(5):
            rows = built.rows(run, client, 1)
            held = np.count_nonzero(built.store.targets[rows] == 2)
            assert held == (built.audit.is_in[run, mine].sum() if client == 3 else 0)


def test_reserved_class_changes_neither_population_nor_coins() -> None:
    plain = build.build(scenario(injections=(Typical(),)))
    rare = build.build(scenario(injections=(Typical(), RareSubgroup())))
    np.testing.assert_array_equal(plain.population.ids, rare.population.ids)
    np.testing.assert_array_equal(plain.audit.is_in, rare.audit.is_in[:, : len(plain.audit)])


def test_a_subgroup_is_unaltered_rows_of_its_class() -> None:
    injected = plan(RareSubgroup(of_class=2, per_client=5, clients=(1,)))
    assert set(injected.examples.targets.tolist()) == {2}
    assert injected.owner.tolist() == [1] * 5
    np.testing.assert_array_equal(injected.examples.inputs, clean(injected).inputs)
