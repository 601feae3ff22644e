"""Tests of `strategies/_rule.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedmem.engines._flower import in_process
from fedmem.strategies._rule import RuleStrategy, share
from fedmem.strategies.fedavg import FedAvg
from tests.cohorts import cohort, flat, models, one_round


def test_rule_numbers_clients_equally_from_range_and_list() -> None:
    for nodes in (range(1001, 1011), list(range(1001, 1011))):
        strategy = RuleStrategy(FedAvg())
        strategy.services.nodes = nodes
        assert [strategy._client(node) for node in (1004, 1001, 7, 1010, 7, 8)] == [3, 0, 10, 9, 10, 11]
    strange = RuleStrategy(FedAvg())
    assert [strange._client(node) for node in (1004, 7, 1004)] == [0, 1, 0]


@pytest.fixture(autouse=True)
def flower() -> Iterator[None]:
    with in_process():
        yield


def test_clients_without_rows_share_evenly() -> None:
    nothing, present = torch.zeros((1, 3), dtype=torch.float64), torch.tensor([[True, False, True]])
    assert share(nothing, present).tolist() == [[0.5, 0.0, 0.5]]
    assert share(nothing, torch.zeros_like(present)).tolist() == [[0.0, 0.0, 0.0]]
    before, there = models(np.random.default_rng(0), 1)[0], cohort(np.random.default_rng(1), 1)
    empty = replace(there.sending([before]), sizes=[0])
    assert np.array_equal(flat(one_round(FedAvg(), empty, before)), flat(before))
