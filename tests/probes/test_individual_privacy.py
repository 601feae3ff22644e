"""Tests of `fedmem/probes/individual_privacy.py`."""

from __future__ import annotations

import numpy as np
import torch

from fedmem.execution.bank import simulate
from fedmem.federation.build import build
from fedmem.privacy.accounting import epsilon_of_spent
from tests.clients.dp_sgd_helpers import SGD
from tests.tiny import tiny


def test_individual_epsilons_grow_by_round_and_depend_on_data() -> None:
    watching = {"probes": [{"kind": "individual_privacy"}], "observe": {"every": 1, "levels": ["local"]}}
    scenario = tiny(client=SGD, runs=2, rounds=3, sampler={"kind": "everyone"}, **watching)
    found = simulate(scenario, build(scenario))
    rows = [row for row in found.measurements if row.reading.metric == "individual_epsilon"]
    assert all(row.reading.labels.get("claim") == "data_dependent" for row in rows)
    for run in (0, 1):
        for which in ("mean", "most"):
            own = [r for r in rows if r.run == run and r.client == 2 and r.reading.labels.get("record") == which]
            values = [row.reading.value for row in sorted(own, key=lambda row: row.round_number)]
            assert len(values) == 3
            assert 0 < values[0] < values[1] < values[2]
    last = {r.reading.labels.get("record"): r.reading for r in rows if r.round is None}
    assert last["mean"].value < last["most"].value
    # at the clip in every step of every round it would be that of nine releases
    every = epsilon_of_spent(np.array([9.0]), 1.0, 1e-5)[0]
    assert last["most"].value <= every
    # watching changes nothing, and stacks agree with one by one
    quiet = tiny(client=SGD, runs=2, rounds=3, sampler={"kind": "everyone"}, observe={})
    for one, other in zip(simulate(quiet, build(quiet)).params, found.params, strict=True):
        assert all(torch.equal(one[name], value) for name, value in other.items())


def test_clients_that_hide_nothing_have_no_individual_epsilon() -> None:
    scenario = tiny(runs=2, rounds=2, probes=[{"kind": "individual_privacy"}])
    assert not simulate(scenario, build(scenario)).measurements
