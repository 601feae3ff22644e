"""Tests of `fedmem/attacks/_layers.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from fedmem.attacks import _layers
from fedmem.attacks._matching import Matching
from tests.attacks.matching_helpers import CLASSES, InPlace, compared, made
from tests.narrowing import instance


class Positions(nn.Module):
    """A linear layer over several places of each image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 3), nn.Linear(2 * 9 * 3, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.outer(torch.tanh(self.inner(x)).flatten(1))
        return out


READ: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, CLASSES)),
    "no bias": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(144, 20, bias=False), nn.Sigmoid(), nn.Linear(20, CLASSES)
    ),
    "strides, padding, dilation": lambda: nn.Sequential(
        nn.Conv2d(2, 6, (3, 2), stride=(2, 1), padding=(1, 2)), nn.Sigmoid(),
        nn.Conv2d(6, 4, 3, dilation=2, bias=False),
        nn.Flatten(), nn.LazyLinear(CLASSES),
    ),
    "groups": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, groups=2, padding="same"), nn.Tanh(), nn.Conv2d(6, 6, 3, groups=3), nn.Flatten(),
        nn.LazyLinear(CLASSES),
    ),
    "norm": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, bias=False), nn.GroupNorm(3, 6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(CLASSES),
    ),
    "in place": InPlace,
    "positions": Positions,
}  # fmt: skip


@pytest.mark.parametrize("objective", ["cosine", "euclid"])
@pytest.mark.parametrize("name", READ)
def test_inner_products_of_layers_give_the_naive_objective(name: str, objective: str) -> None:
    worst, apart, shared = compared(made(READ[name]), objective)
    assert shared
    assert worst < 1e-7
    assert apart < 1e-7


@pytest.mark.parametrize(("rows", "gram"), [(1, True), (60, False)])
def test_both_forms_of_inner_products_are_equal_and_used(
    rows: int, gram: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slopes, inputs, wanted = torch.rand(2, rows, 5).double(), torch.rand(2, rows, 40).double(), torch.rand(2, 5, 40)
    built = slopes.mT @ inputs
    built_too = []
    real = torch.Tensor.square

    def counted(own: torch.Tensor) -> torch.Tensor:
        built_too.append(own)
        return real(own)

    monkeypatch.setattr(torch.Tensor, "square", counted)
    dot, square = _layers.Outer(slopes=slopes, inputs=inputs).products(wanted.double())
    torch.testing.assert_close(dot, (built * wanted).sum((1, 2)))
    torch.testing.assert_close(square, (built * built).sum((1, 2)))
    assert bool(built_too) != gram


@pytest.mark.parametrize("broken", ["sign", "bias", "norm"])
def test_broken_layer_falls_back_to_the_built_gradient(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle test would see it, and so does the check before each stack: the built gradient is taken instead."""
    real = _layers._linear

    def wrong(inputs: torch.Tensor, slopes: torch.Tensor, count: int) -> dict[str, _layers.Part]:
        found = real(inputs, -slopes if broken == "sign" else slopes, count)
        if broken == "bias":
            found.pop("bias")
        if broken == "norm":
            found["weight"] = replace(
                instance(found["weight"], _layers.Outer), inputs=2 * inputs.reshape(count, -1, inputs.shape[-1])
            )
        return found

    monkeypatch.setattr(_layers, "_linear", wrong)
    model = made(READ["linear"])
    worst, _, shared = compared(model, "cosine")
    assert not shared
    assert worst < 1e-7
    monkeypatch.setattr(Matching, "_matches_plain_gradient", lambda *_: True)
    assert compared(model, "cosine")[0] > 1e-4
