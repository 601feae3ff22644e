"""Tests of `fedmem/contracts/training_mode.py`."""

from __future__ import annotations

import torch
from torch import nn

from fedmem.contracts.training_mode import layers_with_statistics, running_statistics, training_copy


def test_statistics_of_a_shared_layer_have_one_name() -> None:
    shared = nn.BatchNorm1d(2)
    network = nn.Sequential(shared, nn.Sequential(shared, nn.BatchNorm1d(2, track_running_stats=False)))
    assert list(layers_with_statistics(network)) == ["0"]
    assert list(running_statistics(network)) == ["0.running_mean", "0.running_var"]


def test_a_copy_trains_without_touching_the_network() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)).eval()
    made = training_copy(network, ("1.running_mean", "1.running_var"))
    made(torch.randn(4, 2))
    assert not any(value.any() for name, value in network.state_dict().items() if name.endswith("mean"))
    means = [value.any().item() for name, value in made.state_dict().items() if name.endswith("mean")]
    assert means == [False, True]
    assert not network.training
