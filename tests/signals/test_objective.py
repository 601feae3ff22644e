"""Tests of `fedmem/signals/_objective.py`: weights of clients, rows and examples in the objective of a model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from fedmem.signals._objective import client_shares, copies_at, objective_of
from tests.signals.signals_helpers import Bench


def test_shares_are_by_rows_or_equal_and_nobody_has_none() -> None:
    sizes = np.array([2.0, 0.0, 6.0])
    assert client_shares(sizes, "size").tolist() == [0.25, 0.0, 0.75]
    assert client_shares(sizes, "uniform").tolist() == [0.5, 0.0, 0.5]
    assert client_shares(np.zeros(2), "size").tolist() == [0.0, 0.0]
    assert client_shares(np.zeros(2), "uniform").tolist() == [0.0, 0.0]


@pytest.mark.parametrize("level", ["local", "global"])
def test_rows_have_the_weights_of_their_clients(level: Literal["local", "global"]) -> None:
    bench = Bench()
    federation = bench.federation
    audit = federation.audit
    found = objective_of(bench.context(bench.transition(bench.params(), level=level, client=1)), 0)
    clients = [1] if level == "local" else range(federation.num_clients)
    rows = [federation.rows(0, client, 2) for client in clients]
    assert found.rows.tolist() == np.concatenate(rows).tolist()
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.weights == pytest.approx(1.0 / len(found.rows), rel=1e-12), "clients count by their rows"
    copies = copies_at(audit, np.array(list(clients))).sum(axis=0)
    assert found.of_examples == pytest.approx(copies / len(found.rows), rel=1e-12)
    if level == "local":
        assert (found.of_examples[audit.owner != 1] == 0).all()
