"""Tests of `fedmem/training/client_work.py`."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.clients.sgd import Sgd
from fedmem.federation.build import build
from fedmem.training.stacked import LocalWork
from tests.tiny import tiny


@settings(max_examples=50, deadline=None)
@given(n=st.integers(0, 60), width=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_epoch_visits_every_row_once(n: int, width: int, epochs: int, seed: int) -> None:
    client = Sgd(epochs=epochs, batch_size=width)
    batches = client.batches(n, np.random.default_rng(seed))
    assert batches.shape == (client.num_steps(n), width)
    per_epoch = -(-n // width)
    for epoch in range(epochs if n else 0):
        rows = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(rows[rows >= 0].tolist()) == list(range(n))
    assert all((row >= 0).any() for row in batches)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), width=st.integers(1, 12), steps=st.integers(1, 25))
def test_a_number_of_steps_is_kept(n: int, width: int, steps: int) -> None:
    batches = Sgd(steps=steps, batch_size=width).batches(n, np.random.default_rng(0))
    assert len(batches) == steps
    assert all((row >= 0).any() for row in batches)


def test_local_work_trains_on_the_rows_of_its_round() -> None:
    """Outside the window of an example its holder trains on a fill-in: equally many steps in all rounds and runs."""
    injections = [{"kind": "typical", "per_client": 2, "start": 2, "stop": 3}]
    scenario = tiny(injections=injections, exclusion="replace")
    federation = build(scenario)
    work = LocalWork(federation, scenario.client, scenario.seed)
    audit = federation.audit_start + np.arange(len(federation.audit))
    for run in range(4):
        for round_number, there in ((1, False), (2, True), (3, True), (4, False)):
            tasks = [work.task(run, round_number, client, federation.initial) for client in range(5)]
            rows = np.concatenate([task.rows for task in tasks])
            assert np.isin(audit, rows).tolist() == (federation.audit.is_in[run] & there).tolist()
            for client, task in enumerate(tasks):
                assert task.rows.tolist() == federation.rows(run, client, round_number).tolist()
                assert task.batches.shape == work.task(0, 1, client, federation.initial).batches.shape
