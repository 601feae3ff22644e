"""Tests of `fedmem/federation/freezing.py`."""

from __future__ import annotations

import pytest
from torch import nn

from fedmem.contracts.model import trained_parameters
from fedmem.errors import ComponentError
from fedmem.federation.freezing import freeze


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2))


def test_patterns_match_whole_names_and_dots() -> None:
    net = network()
    freeze(net, ["1.*", "0.bias"])
    assert list(trained_parameters(net)) == ["0.weight", "2.weight", "2.bias"]
    freeze(net, [])
    assert list(trained_parameters(net)) == ["0.weight", "2.weight", "2.bias"]


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        self.last.weight = self.first.weight


def test_a_shared_parameter_is_frozen_under_either_name() -> None:
    net = Tied()
    freeze(net, ["last.weight"])
    assert list(trained_parameters(net)) == ["first.bias", "last.bias"]


def test_a_pattern_without_a_match_is_refused_with_names() -> None:
    with pytest.raises(
        ComponentError, match=r"'weight' matches no parameter of the network, which has 0\.weight"
    ) as error:
        freeze(network(), ["0.*", "weight"])
    assert error.value.path == "freeze[1]"


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(ComponentError, match="nothing could be trained"):
        freeze(network(), ["0.*", "1.*", "2.*"])
