"""Tests of `strategies/fedprox.py`."""

from __future__ import annotations

import torch

from fedmem.strategies.fedavg import FedAvg
from fedmem.strategies.fedprox import FedProx
from tests.strategies.strategies_helpers import round_of


def test_every_client_of_the_cohort_gets_mu() -> None:
    payload = FedProx(mu=0.3).payload({}, torch.tensor([[4, 1], [0, 2]]))
    assert set(payload) == {"mu"}
    assert payload["mu"].tolist() == [[0.3, 0.3], [0.3, 0.3]]


def test_server_step_is_that_of_fedavg_by_size() -> None:
    round_ = round_of([1.0, 5.0, 100.0], [1.0, 3.0, 50.0], [True, True, False])
    assert FedProx(mu=9.0).rule({}, round_)[0]["w"].tolist() == [[4.0]]
    assert torch.equal(FedProx().rule({}, round_)[0]["w"], FedAvg().rule({}, round_)[0]["w"])
