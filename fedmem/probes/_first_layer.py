"""A first layer that is linear and followed by a ReLU: what a dishonest server writes into, and reads from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmem.contracts.arrays import FloatArray, Params
from fedmem.contracts.federation import Federation
from fedmem.contracts.model import frozen_tensors
from fedmem.contracts.probe import BuiltNetwork
from fedmem.errors import ComponentError, Problem

if TYPE_CHECKING:
    from torch import Tensor

SECOND = 2
"""Layers whose inputs and outputs are watched."""


@dataclass(frozen=True, kw_only=True)
class FirstLayer:
    """The first layer, `z = W a + b` with `a = offset + scale * x`, and the linear layer that reads relu(z).

    Attributes:
        weight: The name of W, (units, d).
        bias: The name of b, (units,).
        following: The name of the weights of the next layer, (outputs, units).
        units: The number of units.
        outputs: The number of units of the next layer.
        offset: (d,) what the layer is given for an input of zeros.
        scale: (d,) by how much it moves for one unit of the input.
    """

    weight: str
    bias: str
    following: str
    units: int
    outputs: int
    offset: FloatArray
    scale: FloatArray

    def at_layer(self, inputs: NDArray[np.float32]) -> FloatArray:
        """(n, d) the values that the layer is given for n inputs."""
        return self.offset + self.scale * inputs.reshape(len(inputs), -1).astype(np.float64)

    def inputs(self, arrived: FloatArray) -> FloatArray:
        """(n, d) the flat inputs for which the layer is given these values."""
        return np.asarray((arrived - self.offset) / self.scale)

    def parts(self, model: Params) -> FloatArray:
        """(units, d + 1) the weights and the bias of each unit of a model."""
        values = [model[name].detach().double().numpy().reshape(self.units, -1) for name in (self.weight, self.bias)]
        return np.concatenate(values, axis=1)

    def with_units(
        self, before: Params, weight: FloatArray, bias: FloatArray, following: FloatArray | None = None
    ) -> Params:
        """A model with other weights and biases of this layer, and optionally of the next; all else stays.

        The values (k, d), (k,) and (outputs, k) are those of the first k units. Units beyond them never fire.
        """
        import torch

        k = len(weight)
        changed = {name: before[name].detach().clone() for name in (self.weight, self.bias, self.following)}
        changed[self.weight].zero_()[:k] = torch.from_numpy(weight).to(changed[self.weight])
        changed[self.bias].copy_(torch.full((self.units,), -1.0))[:k] = torch.from_numpy(bias).to(changed[self.bias])
        if following is not None:
            changed[self.following].zero_()[:, :k] = torch.from_numpy(following).to(changed[self.following])
        return {**before, **changed}


def first_layer(federation: Federation, personal: Sequence[str], probe: str) -> FirstLayer:
    """The first layer of the model of a federation, whose initial weights are read; see `find_first_layer`."""
    built = BuiltNetwork(
        network=federation.model,
        initial=federation.initial,
        shape=federation.store.inputs.shape[1:],
        token_inputs=federation.modality.token_inputs,
        personal=tuple(personal),
        population=len(federation.population),
    )
    return find_first_layer(built, probe)


def find_first_layer(built: BuiltNetwork, probe: str) -> FirstLayer:
    """The first layer of a network.

    Args:
        built: The network with its initial weights.
        probe: The kind of the probe, for messages.

    Raises:
        ComponentError: if the first layer is not linear with a bias, on inputs that are at most shifted and scaled.
            Also if it is not followed by a ReLU and a linear layer, or if the server cannot write or read it.
    """
    import torch
    from torch import nn

    modules = dict(built.network.named_modules())
    shape = built.shape
    places = torch.arange(int(np.prod(shape)), dtype=torch.float64).reshape(shape)
    trial = torch.stack([torch.zeros(shape).double(), torch.ones(shape).double(), places / max(places.numel(), 1)])
    calls = [] if built.token_inputs else _calls(built, trial)
    layers = [modules[name] for name, _, _ in calls]
    reasons = "a network of an embedding, a convolution or a normalisation with weights has none"
    if len(calls) == SECOND and all(isinstance(layer, nn.Linear) for layer in layers):
        (name, arrived, out), (following, hidden, outputs) = calls
        flat = arrived.reshape(len(trial), -1).numpy()
        offset, scale = flat[0], flat[1] - flat[0]
        is_straight = flat.shape[1] == places.numel() and np.all(scale)
        is_straight = is_straight and np.allclose(offset + scale * trial[2].numpy().ravel(), flat[2], atol=1e-9)
        names = [f"{part}.{kind}" for part, kind in ((name, "weight"), (name, "bias"), (following, "weight"))]
        trained = {name for name, value in built.network.named_parameters() if value.requires_grad}
        is_relu = hidden.shape == out.shape and torch.allclose(out.relu(), hidden) and bool((out < 0).any())
        if not is_straight:
            reasons = f"`{name}` is not given the inputs themselves"
        elif names[1] not in dict(built.network.named_parameters()):
            reasons = f"`{name}` has no bias"
        elif not is_relu:
            reasons = f"`{name}` is not followed by a ReLU and a linear layer"
        elif not trained.issuperset(names) or set(names) & set(built.personal):
            reasons = f"`{name}` or `{following}` is frozen, or stays with the clients"
        else:
            sizes = {"units": out.shape[1], "outputs": outputs.shape[1]}
            return FirstLayer(weight=names[0], bias=names[1], following=names[2], offset=offset, scale=scale, **sizes)
    raise ComponentError(
        "probes",
        f"{probe} sends a client a first layer that is linear, has a bias, and is followed by a ReLU. In this model "
        f"there is none: {reasons}. Use a model such as {{kind: mlp, hidden: [64]}}, or leave the probe out",
    )


def layer_problems(built: BuiltNetwork, probe: str) -> list[Problem]:
    """Why there is no such layer, as a problem of the probe; none if there is one."""
    try:
        find_first_layer(built, probe)
    except ComponentError as error:
        return [Problem(path="", message=error.message)]
    return []


def _calls(built: BuiltNetwork, trial: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """The first two layers with parameters: name, inputs and outputs, in float64, at the initial weights."""
    import torch
    from torch.func import functional_call

    state = {
        name: value.detach().double() if value.is_floating_point() else value
        for name, value in (*frozen_tensors(built.network).items(), *built.initial.items())
    }
    calls: list[tuple[str, Tensor, Tensor]] = []
    handles = [
        module.register_forward_hook(
            lambda _, arguments, output, name=name: calls.append((name, arguments[0].detach(), output.detach()))
        )
        for name, module in built.network.named_modules()
        if list(module.parameters(recurse=False))
    ]
    try:
        # layers that take no such numbers refuse them
        with torch.no_grad(), suppress(RuntimeError, IndexError):
            functional_call(built.network, state, (trial,))
    finally:
        for handle in handles:
            handle.remove()
    return calls[:SECOND]
