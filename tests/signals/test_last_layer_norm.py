"""Tests of `fedmem/signals/last_layer_norm.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fedmem.contracts.model import last_layer
from fedmem.signals.last_layer_norm import LastLayerNorm
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

    assert last_layer(Context().network, Context().examples.inputs[:1]) == "second"


class Shifted(nn.Module):
    """A hidden layer with a shift of its own, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x) + self.shift))  # type: ignore[no-any-return]


class ShiftedContext:
    """What the signal asks for, with gradients whose squares are numbers that a test chooses."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    class examples:
        inputs = np.zeros((2, 4), np.float32)

    def squared_gradients(self) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
        return {name: np.full((1, 2), 1.0 + place) for place, (name, _) in enumerate(self.network.named_parameters())}


def test_a_network_with_parameters_of_its_own_is_no_layer() -> None:
    """The network is called first and ends last; the layer that gives the logits is its head."""
    context = ShiftedContext(Shifted().double())
    assert last_layer(context.network, context.examples.inputs[:1]) == "head"
    squares = context.squared_gradients()
    expected = np.sqrt(squares["head.weight"] + squares["head.bias"])
    found = LastLayerNorm().values(context)["last_layer_norm"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)


def test_a_shared_matrix_counts_for_the_last_layer() -> None:
    """`named_parameters` has it once, by the name of the first layer."""
    network = Shifted().double()
    network.head.weight = network.body.weight
    context = ShiftedContext(network)
    squares = context.squared_gradients()
    assert "head.weight" not in squares
    expected = np.sqrt(squares["body.weight"] + squares["head.bias"])
    found = LastLayerNorm().values(context)["last_layer_norm"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, expected)
