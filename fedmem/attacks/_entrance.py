"""The first layer of a network, where it is linear with a bias: what its gradient says of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import Params
from fedmem.contracts.attack import GradientTarget
from fedmem.contracts.model import frozen_tensors
from fedmem.errors import ComponentError


class Entrance:
    """The first layer that a target's inputs meet, in float64, and the way from inputs to it and back.

    Inputs (m, d) are flat. Earlier layers may shift and scale each of the d numbers, as normalisation does.

    Errors: `ComponentError` where the first layer is another, or where the way to it is.
    """

    def __init__(self, target: GradientTarget) -> None:
        self._target = target
        self._state = {
            name: value.detach().double() if value.is_floating_point() else value.clone()
            for name, value in (*frozen_tensors(target.model).items(), *target.params.items())
        }
        with_parameters = [
            name for name, module in target.model.named_modules() if list(module.parameters(recurse=False))
        ]
        zeros = torch.zeros(target.input_shape, dtype=torch.float64)
        # the values in the middle show whether the way is as straight as its ends say
        trial = torch.stack(
            [zeros, zeros + 1, zeros + torch.arange(zeros.numel()).reshape(zeros.shape) / zeros.numel()]
        )
        layer_inputs: list[tuple[str, Tensor]] = []
        with suppress(RuntimeError), torch.no_grad():  # layers that want no such numbers, of tokens for example
            self._call(trial, with_parameters, lambda name, inputs, _: layer_inputs.append((name, inputs.double())))
        name, arrived = layer_inputs[0] if layer_inputs else ("", trial[:0])
        layer = target.model.get_submodule(name)
        straight = arrived.shape[:1] == trial.shape[:1] and arrived.numel() == trial.numel()
        if straight:
            self._offset = arrived[0].flatten()
            self._scale = arrived[1].flatten() - self._offset
            expected = self._offset + self._scale * trial[2].flatten()
            straight = bool(self._scale.all()) and torch.allclose(expected, arrived[2].flatten(), atol=1e-9)
        if not (straight and isinstance(layer, nn.Linear) and dict(layer.named_parameters()).keys() >= {"bias"}):
            raise ComponentError(
                "attack.kind",
                "linear_layer needs a model whose first layer is linear, has a bias, and is given the inputs "
                f"themselves. Here it is {type(layer).__name__} `{name}`"
                f"{'' if straight else ', which is given something else'}. Use a model such as mlp, or the attack "
                "inverting_gradients",
            )
        if not layer.weight.requires_grad or not layer.bias.requires_grad:
            raise ComponentError(
                "attack.kind",
                f"linear_layer reads the update of the first layer, `{name}`, but that layer is frozen and in no "
                "update; use the attack inverting_gradients",
            )
        if f"{name}.weight".lstrip(".") in target.personal:
            raise ComponentError(
                "attack.kind",
                f"linear_layer reads the update of the first layer, `{name}`, but that stays with each client; attack "
                "clients that send it, or use the attack inverting_gradients",
            )
        self._name, self._weight, self._bias = (name, *(f"{name}.{part}".lstrip(".") for part in ("weight", "bias")))

    def rows(self, gradient: Params) -> Tensor:
        """(H, d + 1) of the H units of the layer: the gradient of the weights, and that of the bias."""
        weight, bias = (gradient[name].detach().double() for name in (self._weight, self._bias))
        return torch.cat([weight, bias[:, None]], dim=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """(m, d + 1) what the layer is given for these inputs (m, d), and a one for its bias."""
        return torch.cat([inputs * self._scale + self._offset, inputs.new_ones(len(inputs), 1)], dim=1)

    def inverse(self, values: Tensor) -> Tensor:
        """(m, d) the inputs for which the layer is given these values (m, d)."""
        return (values - self._offset) / self._scale

    def moves(self, inputs: Tensor) -> Tensor:
        """(m, C, H) gradient of the loss of each input (m, d), under each of C labels, in the output of each unit."""
        outputs: list[Tensor] = []

        def watch(name: str, arrived: Tensor, output: Tensor) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[0]

        images = inputs.reshape(-1, *self._target.input_shape)
        with torch.enable_grad():
            logits = self._call(images, [self._name], watch)
            classes = range(logits.shape[1])
            parts = [torch.autograd.grad(logits[:, c].sum(), outputs[0], retain_graph=True)[0] for c in classes]
        slopes = torch.stack(parts, dim=1)
        probabilities = logits.detach().softmax(-1)
        return probabilities[:, None] @ slopes - slopes

    def _call(self, inputs: Tensor, names: list[str], watch: Callable[[str, Tensor, Tensor], Any]) -> Tensor:
        """Logits; `watch` is called for each of these layers, and may replace its output."""
        hooks = [
            self._target.model.get_submodule(name).register_forward_hook(
                lambda _, layer_inputs, output, name=name: watch(name, layer_inputs[0].detach(), output)
            )
            for name in names
        ]
        try:
            logits: Tensor = functional_call(self._target.model, self._state, (inputs,))
        finally:
            for hook in hooks:
                hook.remove()
        return logits
