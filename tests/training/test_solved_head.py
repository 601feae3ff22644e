"""Tests of `fedmem/training/solved_head.py`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedmem.training.solved_head import head_features, solve_head

GENERATOR = torch.Generator().manual_seed(2)
FEATURES = torch.randn(30, 6, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.arange(30) % 4
ONE_HOT = torch.eye(4, dtype=torch.float64)[LABELS]
WEIGHTS = torch.rand(30, generator=GENERATOR, dtype=torch.float64) / 30


@pytest.mark.parametrize("penalty", [3e-1, 3e-3, 3e-5])
def test_logits_are_sums_of_representers(penalty: float) -> None:
    head = solve_head(FEATURES, ONE_HOT, WEIGHTS, penalty)
    assert head is not None
    logits = FEATURES @ head.T
    alpha = WEIGHTS[:, None] * (ONE_HOT - logits.softmax(dim=1)) / (2 * penalty)
    fresh = torch.randn(5, 6, generator=GENERATOR, dtype=torch.float64)
    predicted = fresh @ FEATURES.T @ alpha
    assert float((predicted - fresh @ head.T).abs().max()) < 1e-6


def test_head_is_where_newtons_method_ends() -> None:
    head = solve_head(FEATURES, ONE_HOT, WEIGHTS, 0.01)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        logits = FEATURES @ flat.view(4, 6).T
        losses = nn.functional.cross_entropy(logits, LABELS, reduction="none")
        return WEIGHTS @ losses + 0.01 * flat.square().sum()

    vector = torch.zeros(24, dtype=torch.float64)
    for _ in range(20):
        slope = torch.autograd.functional.jacobian(objective, vector)  # type: ignore[no-untyped-call]
        vector = vector - torch.linalg.solve(torch.autograd.functional.hessian(objective, vector), slope)  # type: ignore[no-untyped-call]
    assert head is not None
    assert float((head - vector.view(4, 6)).abs().max()) < 1e-7


def test_heads_that_are_not_reached_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.training.solved_head.NEWTON_STEPS", 1)
    assert solve_head(FEATURES, ONE_HOT, WEIGHTS, 1e-3) is None


def test_features_are_those_of_the_last_layer() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)).double()
    inputs = torch.randn(7, 3, generator=GENERATOR, dtype=torch.float64)
    features, logits = head_features(network, dict(network.named_parameters()), inputs)
    torch.testing.assert_close(features @ network.get_parameter("2.weight").T, logits)
    convolution = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten()).double()
    with pytest.raises(ValueError, match="the last layer, `0`, is not linear"):
        head_features(convolution, dict(convolution.named_parameters()), torch.zeros(2, 1, 3).double())


def test_gradients_that_cancel_leave_a_head_of_zeros() -> None:
    """With equal features and ten rows of each of ten classes, only rounding is left of the first gradient."""
    targets = torch.eye(10, dtype=torch.float64)[torch.arange(100) % 10]
    weights = torch.full((100,), 0.01, dtype=torch.float64)
    head = solve_head(torch.full((100, 1), 0.7, dtype=torch.float64), targets, weights, 0.003)
    assert head is not None
    assert float(head.abs().max()) < 1e-10
