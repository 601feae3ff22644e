"""Tests of `fedmem/probes/_first_layer.py`: which models have such a layer, and what is written into it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedmem.errors import ComponentError
from fedmem.federation.build import build
from fedmem.probes._first_layer import first_layer
from tests.probes.dishonest_helpers import BRIEF
from tests.tiny import tiny


def federation_of(model: dict[str, Any]) -> Any:
    return build(tiny(**{**BRIEF, "model": model}))


def test_the_layer_of_a_perceptron_is_found() -> None:
    federation = federation_of({"kind": "mlp", "hidden": [5, 4]})
    layer = first_layer(federation, (), "imprint")
    assert (layer.weight, layer.bias, layer.following) == ("hidden1.weight", "hidden1.bias", "hidden2.weight")
    assert (layer.units, layer.outputs) == (5, 4)
    inputs = federation.store.inputs[:3]
    assert layer.inputs(layer.at_layer(inputs)) == pytest.approx(inputs.reshape(3, -1), abs=1e-12)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"kind": "logistic"}, "there is none"),
        ({"kind": "small_cnn"}, "there is none"),
        ({"kind": "mlp", "hidden": [4], "activation": "tanh"}, "`hidden1` is not followed by a ReLU"),
    ],
)
def test_other_models_are_refused_with_the_reason(model: dict[str, Any], reason: str) -> None:
    with pytest.raises(ComponentError, match=f"imprint sends a client.*{reason}.*kind: mlp"):
        first_layer(federation_of(model), (), "imprint")


def test_layers_that_stay_with_clients_are_refused() -> None:
    with pytest.raises(ComponentError, match="is frozen, or stays with the clients"):
        first_layer(federation_of({"kind": "mlp", "hidden": [4]}), ("output.weight",), "imprint")


def test_units_beyond_those_written_never_fire() -> None:
    federation = federation_of({"kind": "mlp", "hidden": [5]})
    layer = first_layer(federation, (), "imprint")
    before = federation.initial_of(0)
    copies = {name: value.clone() for name, value in before.items()}
    sent = layer.with_units(before, np.ones((2, 64)), np.array([0.5, 0.25]), np.ones((layer.outputs, 2)))
    assert sent["hidden1.weight"].sum(dim=1).tolist() == [64.0, 64.0, 0.0, 0.0, 0.0]
    assert sent["hidden1.bias"].tolist() == [0.5, 0.25, -1.0, -1.0, -1.0]
    assert sent["output.weight"][0].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert sent["output.bias"] is before["output.bias"]
    assert all(torch.equal(copies[name], value) for name, value in before.items()), "the model itself stays"
