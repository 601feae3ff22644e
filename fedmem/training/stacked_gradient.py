"""Gradients of a stack of models, one call for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedmem.modalities.loss import log_likelihoods


class StackedGradient(torch.autograd.Function):
    """The gradient of each client's loss, for a model written for one client and run under `vmap`.

    No client's loss depends on the parameters of another, so one backward pass for all of them gives every client's own
    gradient. (`torch.func.grad` keeps the graph of its own backward pass as well, and loads a compiler.)
    """

    @staticmethod
    def forward(*arguments: Any) -> Any:
        """See torch; steps are always called under `vmap`."""
        raise AssertionError("stacked steps are called under vmap")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is differentiated twice."""

    @staticmethod
    def vmap(
        info: Any, in_dims: Sequence[int | None], outputs: Callable[..., Tensor], names: Sequence[str], *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The losses (T,), means over the examples that the mask counts, and the gradients (T, ...).

        The tensors are inputs, targets, mask, a value for each name, and what is stored of the inputs. The mask is 1
        for an example and 0 for none. It is -1 for one that is left out, which counts with a loss and gradient of zero.
        """
        inputs, targets, mask, *others = (
            value.expand(info.batch_size, *value.shape) if place is None else value.movedim(place, 0)
            for value, place in zip(tensors, in_dims[2:], strict=True)
        )
        values, stored = others[: len(names)], others[len(names) :]
        counts = mask.abs().sum(dim=1).clamp(min=1)
        mask = mask.clamp(min=0)
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            raw_logits = torch.vmap(outputs)(dict(zip(names, leaves, strict=True)), inputs, *stored)
            logits = raw_logits.detach().requires_grad_()
            likelihoods = log_likelihoods(logits, targets)
            (slopes,) = torch.autograd.grad(_SlopedLoss.apply(likelihoods, -(mask / counts[:, None])), logits)  # type: ignore[no-untyped-call]
            gradients = torch.autograd.grad(_SlopedLoss.apply(raw_logits, slopes.contiguous()), leaves)  # type: ignore[no-untyped-call]
        losses = -(likelihoods.detach() * mask).sum(dim=1) / counts
        return (losses, *gradients), (0,) * (1 + len(gradients))


class _SlopedLoss(torch.autograd.Function):
    """A number whose gradient is given. (So would be `grad_outputs` of `torch.autograd.grad`, which loads sympy.)"""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return values.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None
