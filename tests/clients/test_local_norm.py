"""Tests of `fedmem/clients/local_norm.py`."""

from __future__ import annotations

import pytest
import torch

from fedmem.clients.local_norm import LocalNorm
from fedmem.errors import ComponentError

BEFORE = {"conv.weight": torch.ones(2, 3), "norm.weight": torch.ones(2), "norm.bias": torch.zeros(2)}


def test_scales_and_shifts_are_trained_kept_and_never_sent() -> None:
    client = LocalNorm(lr=1.0)
    state = client.init(BEFORE, {}, {"norm.weight": torch.full((2,), 5.0)})
    state = client.step(state, lambda params: {name: torch.ones_like(value) for name, value in params.items()})
    outcome = client.final(state, BEFORE)
    # by hand: one step of -1 from the aggregate, from the own scale of 5, and from the shift of the aggregate
    assert outcome.kept["conv.weight"].eq(0).all()
    assert outcome.kept["norm.weight"].tolist() == [4.0, 4.0]
    assert outcome.kept["norm.bias"].tolist() == [-1.0, -1.0]
    assert outcome.sent["conv.weight"] is outcome.kept["conv.weight"]
    for name in ("norm.weight", "norm.bias"):
        assert torch.equal(outcome.sent[name], BEFORE[name])
        assert torch.equal(outcome.memory[name], outcome.kept[name])
    assert set(outcome.memory) == {"norm.weight", "norm.bias"}


def test_network_without_normalisation_is_refused() -> None:
    with pytest.raises(ComponentError, match="the network has none"):
        LocalNorm().personal_parameters({"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)})
