"""Tests of `fedmem/probes/_first_step.py`."""

from __future__ import annotations

import numpy as np

from fedmem.clients.dp_sgd import DpSgd
from fedmem.clients.sgd import Sgd
from fedmem.contracts.client import PrivateAlgorithm
from fedmem.probes._first_step import first_step_of
from tests.declaring import Scheduled


def test_the_first_step_of_any_client_is_its_first_batch_alone() -> None:
    for client in (Sgd(batch_size=4, epochs=3), Scheduled(batch_size=4), DpSgd(batch_size=4)):
        first = first_step_of(client)
        own, whole = (one.batches(10, np.random.default_rng(5)) for one in (first, client))
        assert first.num_steps(10) == 1
        assert first.num_steps(0) == 0
        np.testing.assert_array_equal(own, whole[:1])
        assert isinstance(first, PrivateAlgorithm) == isinstance(client, DpSgd), "attacks still see that it hides"
