"""Norms of per-example gradients from activations and output gradients, without building the gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import Params
from fedmem.contracts.model import trained_parameters
from fedmem.modalities.loss import example_losses
from fedmem.training.model_checks import TOLERANCE, perturb_parameters
from fedmem.training.precision import forward_pass


class Layers:
    """A model all of whose trained parameters are those of linear layers, each met once, by rows (n, features).

    `biased` says of each layer whether it has a bias. Nothing else is done with the parameters: gradients by layers are
    compared with plain ones.
    """

    def __init__(self, model: nn.Module, widths: Mapping[str, int], biased: Mapping[str, bool]) -> None:
        self._model = model
        self._widths = widths
        self.biased = biased
        self.precision = "fp32"
        """Of the forward pass (`precision.py`). Norms and sums are of the same inputs and slopes, in float32."""

    @staticmethod
    def of(model: nn.Module, inputs: Tensor) -> Layers | None:
        """The layers of a model, as a few inputs (n, ...) meet them; None for other models."""
        trained = trained_parameters(model)
        linear = {
            name: part
            for name, part in model.named_modules()
            if type(part) is nn.Linear and any(value.requires_grad for value in part.parameters())
        }
        names = {f"{name}.{which}" for name, part in linear.items() for which, _ in part.named_parameters()}
        if names != trained.keys():
            return None
        calls: list[tuple[str, int]] = []

        def note(name: str, _: nn.Module, arguments: tuple[Tensor, ...], value: Tensor) -> None:
            calls.append((name, arguments[0].ndim))

        with _with_hooks({name: partial(note, name) for name in linear}, linear), torch.no_grad():
            model(inputs)
        if sorted(calls) != sorted((name, 2) for name in linear):
            return None
        biased = {name: part.bias is not None for name, part in linear.items()}
        layers = Layers(model, {name: part.out_features for name, part in linear.items()}, biased)
        model_params = {name: value.detach() for name, value in trained.items()}
        return (
            layers
            if all(layers._are_all(params, inputs) for params in (model_params, perturb_parameters(model)))
            else None
        )

    def _are_all(self, params: Params, inputs: Tensor) -> bool:
        """Whether the gradient of each example (n, ...) is that of the layers, up to rounding, for made-up targets."""
        with torch.no_grad():
            logits = batch_outputs(self._model, params, inputs)
        targets = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=inputs.device)
        if targets.ndim > 2:
            return False
        stacked_params = {name: value[None] for name, value in params.items()}
        _, layer_inputs, slopes = self.inputs_and_slopes(stacked_params, inputs[None], targets[None])
        for i in range(len(inputs)):
            autograd_gradients = plain_gradients(self._model, params, inputs[i : i + 1], targets[i : i + 1])
            layer_gradients: Params = {}
            for name, biased in self.biased.items():
                layer_gradients[f"{name}.weight"] = torch.outer(slopes[name][0, i], layer_inputs[name][0, i])
                if biased:
                    layer_gradients[f"{name}.bias"] = slopes[name][0, i]
            off = norm_of(
                {name: value.double() - layer_gradients[name].double() for name, value in autograd_gradients.items()}
            )
            if not off <= TOLERANCE * norm_of(autograd_gradients) + 1e-6:
                return False
        return True

    def inputs_and_slopes(self, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Params, Params]:
        """Losses (T, B), what each layer was given (T, B, in), and slopes of the losses at what it gave (T, B, out)."""
        with torch.enable_grad():
            losses, zeros, layer_inputs = self._pass(params, (inputs, targets), example_losses)
            slopes = torch.autograd.grad(losses.sum(), list(zeros.values()))
        return losses.detach(), layer_inputs, dict(zip(zeros, slopes, strict=True))

    def class_inputs_and_slopes(self, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Params, Params]:
        """The inputs and slopes alone, for targets (T, B) that are one class each.

        The slope at the logits is written down, p - e_y, so that no pass goes backwards through the loss. For other
        targets they are those of `inputs_and_slopes`.
        """
        if targets.ndim > 2:
            return self.inputs_and_slopes(params, inputs, targets)[1:]
        with torch.enable_grad():
            logits, zeros, layer_inputs = self._pass(params, (inputs, targets), lambda outputs, _: outputs)
            at_logits = logits.detach().softmax(dim=-1)
            less = at_logits.new_full((1, 1, 1), -1.0).expand(*targets.shape, 1)
            at_logits.scatter_add_(-1, targets[..., None], less)
            slopes = torch.autograd.grad(logits, list(zeros.values()), grad_outputs=at_logits)
        return layer_inputs, dict(zip(zeros, slopes, strict=True))

    def _pass(
        self, params: Params, batches: tuple[Tensor, Tensor], finish: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Params, Params]:
        """One pass: `finish` of outputs and targets, zeros that stand where layers give, and what layers were given."""
        inputs, targets = batches
        linear = {name: self._model.get_submodule(name) for name in self.biased}
        # zeros that are added to what a layer gives: the slope there is the slope at them
        zeros = {
            name: inputs.new_zeros(*inputs.shape[:2], width).requires_grad_() for name, width in self._widths.items()
        }

        def single_pass(client_params: Params, batch: Tensor, labels: Tensor, added: Params) -> tuple[Tensor, Params]:
            layer_inputs: Params = {}

            def note(name: str, _: nn.Module, arguments: tuple[Tensor, ...], value: Tensor) -> Tensor:
                layer_inputs[name] = arguments[0]
                return value + added[name]

            passing = forward_pass(self.precision, batch.device.type)
            with _with_hooks({name: partial(note, name) for name in linear}, linear), passing:
                outputs = functional_call(self._model, client_params, (batch,))
            return finish(outputs if self.precision == "fp32" else outputs.float(), labels), layer_inputs

        detached_params = {name: value.detach() for name, value in params.items()}
        finished, layer_inputs = torch.vmap(single_pass)(detached_params, inputs, targets, zeros)
        return finished, zeros, {name: value.detach() for name, value in layer_inputs.items()}


@contextmanager
def _with_hooks(hooks: Mapping[str, Callable[..., Any]], modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """With these forward hooks."""
    handles = [modules[name].register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def plain_gradients(model: nn.Module, params: Params, inputs: Tensor, targets: Tensor) -> Params:
    """The gradient of the sum of the losses of these examples, by autograd alone; zero where nothing depends on it."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        loss = example_losses(batch_outputs(model, leaves, inputs), targets).sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


def norm_of(values: Params) -> float:
    """Euclidean norm of all tensors together, in float64."""
    return float(torch.stack([value.double().square().sum() for value in values.values()]).sum().sqrt())


def batch_outputs(model: nn.Module, params: Params, batch: Tensor) -> Tensor:
    """Outputs of a model with these parameters on a batch."""
    outputs: Tensor = functional_call(model, params, (batch,))
    return outputs
