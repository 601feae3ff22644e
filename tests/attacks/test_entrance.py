"""Tests of `fedmem/attacks/_entrance.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fedmem.apps.attack import Known
from fedmem.apps.attack import target_of as known_target
from fedmem.attacks._entrance import Entrance
from fedmem.errors import ComponentError
from tests.attacks.linear_layer_helpers import attacked, errors
from tests.lab import digits, network, parameters, target_of


@pytest.mark.parametrize(
    "broken",
    [
        lambda rows: torch.cat([rows[:, :-1], -rows[:, -1:]], dim=1),
        lambda rows: torch.cat([rows[:, :-1], 1 / rows[:, -1:]], dim=1),
        lambda rows: torch.cat([2 * rows[:, :-1], rows[:, -1:]], dim=1),
    ],
    ids=["sign", "division", "normaliser"],
)
def test_broken_sign_division_or_normaliser_gives_a_large_error(
    broken: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Entrance.rows
    monkeypatch.setattr(Entrance, "rows", lambda self, gradient: broken(rows(self, gradient)))
    model, row = network(), digits().take(np.array([7]))
    assert errors(attacked(target_of(model, parameters(model), row)), row).max() > 0.1


def test_inputs_that_the_model_normalises_come_back_as_they_were() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    image = np.random.default_rng(1).random((1, 3, 2, 2), dtype=np.float32)
    before = parameters(model)
    shifted = (torch.from_numpy(image) - 0.4) / 0.25
    gradient = torch.autograd.grad(
        nn.functional.cross_entropy(model(shifted), torch.tensor([6])), list(model.parameters())
    )
    known = Known(
        input_shape=(3, 2, 2), num_classes=10, num_images=1, lr=1.0, mean=(0.4, 0.4, 0.4), std=(0.25, 0.25, 0.25)
    )
    target = known_target(before, dict(zip(before, gradient, strict=True)), model, known, gradient=True)
    found = attacked(target)
    assert np.abs(found.inputs - image).max() < 1e-5
    assert found.labels.tolist() == [6]


class Tokens(nn.Module):
    """Reads whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(2, 4), nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.output(self.embedding(x.flatten(1).long().clamp(0, 1)).flatten(1))
        return found


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)),
        nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(64, 10)),
        Tokens(),
    ],
    ids=["no bias", "convolution", "bent", "tokens"],
)
def test_other_first_layers_are_refused_by_name(model: nn.Module) -> None:
    target = target_of(model, parameters(model), digits().take(np.arange(1)))
    with pytest.raises(ComponentError, match="whose first layer is linear, has a bias"):
        attacked(target)
