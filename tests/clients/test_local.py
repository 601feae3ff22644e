"""Tests of `fedmem/clients/_local.py`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmem.clients.sgd import Sgd
from tests.clients.clients_helpers import CLIENTS
from tests.tiny import tiny


@pytest.mark.parametrize("kind", CLIENTS)
def test_local_work_is_that_of_sgd(kind: str) -> None:
    """The same batches and steps: only what leaves the client and what it remembers differ."""
    client = tiny(client={"kind": kind, "lr": 0.2, "epochs": 2, "batch_size": 4, **CLIENTS[kind]}).client
    plain = Sgd(lr=0.2, epochs=2, batch_size=4)
    one, other = (c.batches(10, np.random.default_rng(0)) for c in (client, plain))
    assert np.array_equal(one, other)
    before = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2), "1.weight": torch.ones(2)}
    state, expected = client.init(before, {}, {}), plain.init(before, {}, {})
    for _ in range(2):
        state, expected = (
            c.step(s, lambda params: {n: 0.5 * v + 1 for n, v in params.items()})
            for c, s in ((client, state), (plain, expected))
        )
    kept = client.final(state, before).kept
    assert all(torch.equal(value, kept[name]) for name, value in expected["params"].items())
