"""Tests of `fedmem/signals/last_layer_norm.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedmem.signals.last_layer_norm import LastLayerNorm, last_layer
from tests.signals.signals_helpers import Bench


def test_is_el2n_times_the_length_of_what_the_layer_is_given() -> None:
    bench = Bench()
    params = bench.params()
    found = bench.values(LastLayerNorm(), params)["last_layer_norm"][0]
    doubled = {name: value.double() for name, value in params.items()}
    inputs = torch.from_numpy(bench.examples.inputs).double().flatten(1)
    first = next(name for name in doubled if name.endswith("weight")).removesuffix(".weight")
    hidden = torch.relu(inputs @ doubled[f"{first}.weight"].T + doubled[f"{first}.bias"])
    error = np.linalg.norm(bench.probabilities(params) - bench.one_hot(), axis=1)
    length = np.sqrt(np.square(hidden.numpy()).sum(axis=1) + 1)
    np.testing.assert_allclose(found, error * length, rtol=1e-5)


def test_last_layer_is_the_one_called_last() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]

    class Context:
        network = Backwards().double()

        class examples:
            inputs = np.zeros((2, 4), np.float32)

    assert last_layer(Context()) == "second"  # type: ignore[arg-type]
