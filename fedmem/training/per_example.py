"""Gradients of single examples, shortened one by one and summed, with noise: by Opacus, or by torch for a stack.

Both give the same sums to rounding, and a test compares both with Opacus's optimiser.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import PerExample
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.training_mode import layers_with_statistics
from fedmem.modalities.loss import UNASKED, example_losses
from fedmem.seeding import Streams
from fedmem.training.finite import is_finite
from fedmem.training.ghost_clipping import Layers, batch_outputs, norm_of, plain_gradients
from fedmem.training.model_checks import TOLERANCE, perturb_parameters
from fedmem.training.precision import forward_pass

NOISE = "noise of local steps"
"""The streams of the noise: one for each run, round and client, from which its steps are drawn in turn."""

GHOST = 1 << 14
"""Parameters of linear layers from which on ghost clipping is faster than keeping the gradient of every example.

The unit of these times is a step of 32 examples without clipping. The first number is by hooks, the second by ghost
clipping: 4.9 and 5.3 at 2 400 parameters, and 5.3 and 4.7 at 12 700. Further on it is 6.8 and 3.6 at 50 900, and 13.9
and 4.8 at 118 000. With convolutions it is 1.7 and 1.8 at 15 700 parameters of linear layers, and 4.3 and 2.7 at
530 000. It is 2.3 and 3.0 where convolutions have nearly all of them.
"""

Outputs = Callable[[Params, Tensor], Tensor]


def by_ghost(model: nn.Module) -> bool:
    """Whether one client's gradients of single examples are never there: by ghost clipping.

    Not with embeddings, of which Opacus asks that what they are given lies in memory as it is read.
    """
    parts = list(model.modules())
    layers = (part for part in parts if isinstance(part, nn.Linear))
    linear = sum(value.numel() for part in layers for value in trained_parameters(part).values())
    return linear >= GHOST and not any(isinstance(part, nn.Embedding | nn.RNNBase) for part in parts)


def one_by_one(model: nn.Module) -> bool:
    """Whether examples go through the model one after the other, since their gradients cannot be separated in it."""
    return any(isinstance(part, nn.RNNBase) for part in model.modules())


class Noise:
    """The noise for the steps of clients: standard normal, one number for each parameter, in their order.

    Guarantees:

    - that of (seed, run, round, client), with any other clients, on any executor and engine.
    """

    def __init__(self, seed: int) -> None:
        self._streams = Streams(seed, NOISE)

    def of(self, run: int, round_number: int, client: int, size: int) -> Iterator[Tensor]:
        """The noise (P,) of one step after the other, in float64."""
        rng = self._streams.new_generator(run=run, round_number=round_number, client=client)
        while True:
            yield torch.from_numpy(rng.standard_normal(size))


def add_noise(total: Params, noise: Tensor, how: PerExample) -> Params:
    """(total + z S noise) / expected, with noise (P,) for all parameters in their order, in the types of `total`."""
    scale, start, gradient = how.noise_multiplier * how.clip, 0, {}
    for name, value in total.items():
        part = noise[start : start + value.numel()].view(value.shape)
        gradient[name] = ((value.double() + scale * part) / how.expected).to(value.dtype)
        start += value.numel()
    return gradient


# --- one client -------------------------------------------------------------------------------------------------------


class ClippedSums:
    """The sum over a batch of the gradients of its examples, each shortened to norm S, by Opacus.

    Models with large linear layers use ghost clipping, which goes backward twice and keeps no gradient of an example.
    All others use hooks that keep these gradients (`GHOST`). With recurrent layers each example has a pass of its own,
    since the fused kernels of torch show no hook what happens between two tokens. A millionth is added to the norm, so
    that a gradient of zero is no problem. A gradient that is not finite counts as zero. Hooks see only what modules do:
    call `verify` once for a model that is not known.

    In a lower `precision`, hooks would take norms of rounded slopes. Gradients are then those of `torch`, in float32.
    """

    def __init__(self, model: nn.Module, how: PerExample, precision: str = "fp32") -> None:
        self._how, self._clip = how, how.clip
        self._model = model
        self._precision = precision
        # Opacus refuses layers with buffers, whose statistics are constant here
        self.ghost, self.one_by_one = by_ghost(model), one_by_one(model) or bool(layers_with_statistics(model))
        if self.one_by_one or precision != "fp32":
            return
        from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping

        model_copy = deepcopy(model)
        self._wrapped: Any
        if self.ghost:
            self._wrapped = GradSampleModuleFastGradientClipping(model_copy, max_grad_norm=how.clip)
        else:
            self._wrapped = GradSampleModule(model_copy)
        self._params = trained_parameters(model_copy)
        # of it only what sums up is used: steps are those of the client algorithm, and noise is from named streams
        self._optimizer: Any = (DPOptimizerFastGradientClipping if self.ghost else DPOptimizer)(
            torch.optim.SGD(self._params.values(), lr=1.0),
            noise_multiplier=0.0,
            max_grad_norm=how.clip,
            expected_batch_size=1,
        )

    def verify(self, inputs: Tensor, targets: Tensor) -> None:
        """Compare norms and sums of two examples with plain gradients; where they differ, go on one by one.

        Hooks miss what no module does, such as `F.linear(x, self.layer.weight)`. Examples (n, ...) are as in a call.
        The first two with a target are compared, since others have no gradient.
        """
        if self.one_by_one:
            return
        if self._precision != "fp32":
            params = {name: value.detach() for name, value in trained_parameters(self._model).items()}
            try:
                self._in_stack(params, inputs[:2], targets[:2])
            except (RuntimeError, TypeError, ValueError):
                self.one_by_one = True
            return
        rows = (targets != UNASKED).flatten(1).any(dim=1) if targets.ndim > 1 else targets != UNASKED
        first = rows.nonzero()[:2, 0]
        if not len(first):
            return
        inputs, targets = inputs[first], targets[first]
        if inputs.device.type != "cpu":
            probe = ClippedSums(deepcopy(self._model).cpu(), self._how)
            probe.verify(inputs.cpu(), targets.cpu())
            self.one_by_one = probe.one_by_one
            return
        model_params = {name: value.detach() for name, value in trained_parameters(self._model).items()}
        self.one_by_one = not all(
            self._is_right(params, inputs, targets) for params in (model_params, perturb_parameters(self._model))
        )

    def _is_right(self, params: Params, inputs: Tensor, targets: Tensor) -> bool:
        """Whether norms and the sum of shortened gradients are those of plain gradients, up to rounding."""
        each = [plain_gradients(self._model, params, inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))]
        lengths = [norm_of(gradient) for gradient in each]
        expected = {
            name: sum(
                gradient[name].double() * min(1.0, self._clip / (length + 1e-6))
                for gradient, length in zip(each, lengths, strict=True)
            )
            for name in params
        }
        self._set(params)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                _, norms, total = (self._by_ghost if self.ghost else self._by_hooks)(inputs, targets)
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return False  # Opacus has no gradients of single examples for some parameter
        expected_norms = torch.tensor(lengths, dtype=torch.float64)
        distance = norm_of({name: total[name].double() - value for name, value in expected.items()})
        norms_agree = bool(((norms.double() - expected_norms).abs() <= TOLERANCE * expected_norms + 1e-6).all())
        return norms_agree and distance <= TOLERANCE * sum(min(length, self._clip) for length in lengths) + 1e-6

    def _set(self, params: Params) -> None:
        """Give the wrapped model these parameters."""
        with torch.no_grad():
            for name, value in self._params.items():
                value.copy_(params[name])

    def __call__(self, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Params]:
        """Losses (B,), shares (B,) and the sum of the shortened gradients; zeros for an empty batch.

        A share is the square of by how many clips an example moves the sum: min(norm, S)^2 / S^2.
        """
        if not len(inputs):
            no_losses = torch.zeros(0, device=inputs.device)
            return no_losses, no_losses.double(), {name: torch.zeros_like(value) for name, value in params.items()}
        if self.one_by_one:
            return self._by_one(params, inputs, targets)
        if self._precision != "fp32":
            return self._in_stack(params, inputs, targets)
        self._set(params)
        with warnings.catch_warnings():
            # inputs need no gradient, of which torch warns where hooks are
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            by = self._by_ghost if self.ghost else self._by_hooks
            losses, norms, total = by(inputs, targets)
        if not is_finite(total):
            total = self._in_stack(params, inputs, targets)[2]
        return losses, _shares(norms.double().square(), torch.ones_like(norms), self._clip), total

    def _outputs(self, params: Params, batch: Tensor) -> Tensor:
        """Outputs of the model, in float32 if the forward pass is in bf16."""
        if self._precision == "fp32":
            return batch_outputs(self._model, params, batch)
        with forward_pass(self._precision, batch.device.type):
            return batch_outputs(self._model, params, batch).float()

    def _in_stack(self, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Params]:
        """The result of a call, as of a stack of one client."""
        stacked_params = {name: value[None] for name, value in params.items()}
        mask = torch.ones(1, len(inputs), device=inputs.device)
        losses, shares, total = clipped_sums(
            self._outputs, None, stacked_params, inputs[None], targets[None], mask, self._clip
        )
        return losses[0], shares[0], {name: value[0] for name, value in total.items()}

    def _by_one(self, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Params]:
        """The result of a call, computed one example after the other."""
        leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
        total = {name: torch.zeros_like(value) for name, value in params.items()}
        losses, squares = [], []
        for row in range(len(inputs)):
            with torch.enable_grad():
                loss = example_losses(self._outputs(leaves, inputs[row : row + 1]), targets[row : row + 1])
                gradient = torch.autograd.grad(loss.sum(), list(leaves.values()))
            square = torch.stack([value.double().square().sum() for value in gradient]).sum()
            if bool(square.isfinite()):
                factor = float(_factors(square, torch.ones_like(square), self._clip))
                for value, part in zip(total.values(), gradient, strict=True):
                    value += factor * part
            losses.append(loss.detach())
            squares.append(square)
        shares = _shares(torch.stack(squares), torch.ones_like(squares[0]), self._clip)
        return torch.cat(losses), shares, total

    def _by_hooks(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Params]:
        self._optimizer.zero_grad(set_to_none=True)
        losses = example_losses(self._wrapped(inputs), targets)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        each: list[Tensor] = self._optimizer.grad_samples
        norms = torch.stack([value.flatten(1).norm(dim=1) for value in each]).norm(dim=0)
        self._optimizer.clip_and_accumulate()
        return losses.detach(), norms, {name: value.summed_grad for name, value in self._params.items()}  # type: ignore[attr-defined]

    def _by_ghost(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Params]:
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        self._optimizer.zero_grad(set_to_none=True)
        losses = example_losses(self._wrapped(inputs), targets)
        DPTensorFastGradientClipping(self._wrapped, self._optimizer, losses).backward()
        norms = self._wrapped.per_sample_gradient_norms.detach()
        return losses.detach(), norms, {name: value.grad.clone() for name, value in self._params.items()}  # type: ignore[union-attr]


# --- a stack of clients -----------------------------------------------------------------------------------------------


def clipped_sums(
    outputs: Outputs,
    layers: Layers | None,
    params: Params,
    inputs: Tensor,
    targets: Tensor,
    mask: Tensor,
    clip: float,
) -> tuple[Tensor, Tensor, Params]:
    """Losses and shares (T, B), and sums (T, ...) of the shortened gradients, of examples that the mask counts.

    With `layers` the gradient of an example is a product of a linear layer's input and of the slope at its output. Its
    norm is therefore known without the gradient. Without `layers` every example has parameters of its own for one pass.
    """
    if layers is None:
        losses, each = _example_gradients(outputs, params, inputs, targets)
        squares = sum(value.double().flatten(2).square().sum(dim=2) for value in each.values())
        factors = _factors(squares, mask, clip)  # type: ignore[arg-type]
        shares = _shares(squares, mask, clip)  # type: ignore[arg-type]
        return losses, shares, {name: _weighted_sum(factors, value) for name, value in each.items()}
    losses, layer_inputs, slopes = layers.inputs_and_slopes(params, inputs, targets)
    squares = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    for name, biased in layers.biased.items():
        squared_inputs = layer_inputs[name].double().square().sum(dim=2) + float(biased)
        squares = squares + squared_inputs * slopes[name].double().square().sum(dim=2)
    factors = _factors(squares, mask, clip)
    total: Params = {}
    for name, biased in layers.biased.items():
        clipped_slopes = _zero_where_silent(factors, slopes[name]) * factors[..., None]
        total[f"{name}.weight"] = torch.bmm(
            clipped_slopes.transpose(1, 2), _zero_where_silent(factors, layer_inputs[name])
        )
        if biased:
            total[f"{name}.bias"] = torch.bmm(torch.ones_like(factors)[:, None], clipped_slopes)[:, 0]
    return losses, _shares(squares, mask, clip), {name: total[name] for name in params}


def _factors(squares: Tensor, mask: Tensor, clip: float) -> Tensor:
    """(T, B) what each gradient is multiplied by: 0 where it is not counted or not finite."""
    factors = (clip / (squares.sqrt() + 1e-6)).clamp(max=1) * mask
    return torch.where(squares.isfinite(), factors, torch.zeros_like(factors)).float()


def _shares(squares: Tensor, mask: Tensor, clip: float) -> Tensor:
    """min(norm, S)^2 / S^2 of each example in float64; 0 where it is not counted or its gradient counts as zero."""
    shares = (squares / clip**2).clamp(max=1) * mask
    return torch.where(squares.isfinite(), shares, torch.zeros_like(shares))


def _zero_where_silent(factors: Tensor, values: Tensor) -> Tensor:
    """Zeros (T, B, ...) where the factor is zero, which would not silence an infinity."""
    return torch.where((factors > 0).view(*factors.shape, *(1,) * (values.ndim - 2)), values, torch.zeros_like(values))


def _weighted_sum(factors: Tensor, each: Tensor) -> Tensor:
    """(T, B), (T, B, ...) -> (T, ...): the weighted sum, as products, whose bits do not depend on other clients."""
    flat = (
        _zero_where_silent(factors, each).flatten(2) if each.ndim > 2 else _zero_where_silent(factors, each)[..., None]
    )
    return torch.bmm(factors[:, None], flat)[:, 0].view(len(each), *each.shape[2:])


def _example_gradients(outputs: Outputs, params: Params, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Params]:
    """Losses (T, B) and gradients (T, B, ...): each example has leaves of its own, so one backward pass does."""
    clients, rows = inputs.shape[:2]
    with torch.enable_grad():
        leaves = {
            name: value.detach()[:, None].expand(clients, rows, *value.shape[1:]).contiguous().requires_grad_()
            for name, value in params.items()
        }

        def loss(example_params: Params, example_input: Tensor, target: Tensor) -> Tensor:
            return example_losses(outputs(example_params, example_input[None]), target[None])[0]

        losses = torch.vmap(torch.vmap(loss))(leaves, inputs, targets)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return losses.detach(), dict(zip(leaves, gradients, strict=True))


class PrivateGradient(torch.autograd.Function):
    """The noisy gradient of each client of a stack, for an algorithm written for one client and run under `vmap`."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """Never called: all clients are one call of `vmap`."""
        raise AssertionError("stacked steps are called under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is differentiated twice."""

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Sequence[int | None],
        outputs: Outputs,
        layers: Layers | None,
        how: PerExample,
        names: Sequence[str],
        *tensors: Tensor,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The results of a step: mean loss and shares of its examples (T, 1 + B), and the noisy gradients (T, ...)."""
        inputs, targets, mask, noise, *values = (
            value.expand(info.batch_size, *value.shape) if place is None else value.movedim(place, 0)
            for value, place in zip(tensors, in_dims[4:], strict=True)
        )
        params = dict(zip(names, values, strict=True))
        counts, mask = mask.abs().sum(dim=1).clamp(min=1), mask.clamp(min=0)  # -1: left out, see `StackedGradient`
        losses, shares, total = clipped_sums(outputs, layers, params, inputs, targets, mask, how.clip)
        gradients = torch.vmap(partial(add_noise, how=how))(total, noise)
        mean = torch.where(mask > 0, losses, torch.zeros_like(losses)).sum(dim=1) / counts
        loss_and_shares = torch.cat((mean[:, None].double(), shares), dim=1)
        return (loss_and_shares, *gradients.values()), (0,) * (1 + len(gradients))


# --- what examples spend ----------------------------------------------------------------------------------------------

SPENT = ("spent_sum", "spent_most")
"""Client state and metrics of the squares of clips by which records moved the releases: their sum, and a bound.

The sum is over all records. The bound holds for each record: it adds up the largest square of each participation."""


def privacy_spent(batches: IntArray, shares: FloatArray, memory: Params) -> Params:
    """`SPENT` after a participation with these batches (S, B), -1 for padding, and shares (S, B) of their examples.

    Where a row of the store is there several times its copies count together, which is more than any of them has spent.
    """
    is_row = batches >= 0
    _, places = np.unique(batches[is_row], return_inverse=True)
    share_of_row = np.bincount(places, weights=shares[is_row])
    totals = (float(share_of_row.sum()), float(share_of_row.max(initial=0.0)))
    zero = torch.zeros((), dtype=torch.float64)
    return {name: memory.get(name, zero).cpu() + value for name, value in zip(SPENT, totals, strict=True)}
