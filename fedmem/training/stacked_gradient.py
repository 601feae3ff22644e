"""Gradients of a stack of models, one call for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedmem.modalities.loss import UNASKED


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
        info: Any, in_dims: Sequence[int | None], outputs: Callable[..., Tensor], names: Sequence[str], *given: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """The losses (T,), means over the examples that the mask counts, and the gradients (T, ...)."""
        inputs, targets, mask, *values = (
            value.expand(info.batch_size, *value.shape) if place is None else value.movedim(place, 0)
            for value, place in zip(given, in_dims[2:], strict=True)
        )
        counts = mask.sum(dim=1).clamp(min=1)
        with torch.enable_grad():
            leaves = [value.detach().requires_grad_() for value in values]
            told = torch.vmap(outputs)(dict(zip(names, leaves, strict=True)), inputs)
            logits = told.detach().requires_grad_()
            found = _of_labels(logits, targets)
            (slopes,) = torch.autograd.grad(_Sloped.apply(found, -(mask / counts[:, None])), logits)  # type: ignore[no-untyped-call]
            gradients = torch.autograd.grad(_Sloped.apply(told, slopes.contiguous()), leaves)  # type: ignore[no-untyped-call]
        losses = -(found.detach() * mask).sum(dim=1) / counts
        return (losses, *gradients), (0,) * (1 + len(gradients))


class _Sloped(torch.autograd.Function):
    """A number whose gradient is given. (So would be `grad_outputs` of `torch.autograd.grad`, which loads sympy.)"""

    @staticmethod
    def forward(ctx: Any, values: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return values.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


def _of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """(T, B) the log-probability of the label; of a text (T, B, L, C) the mean over the places that are asked for."""
    if outputs.ndim > 3:
        told = F.log_softmax(outputs, dim=3).gather(3, targets.clamp(min=0).unsqueeze(3)).squeeze(3)
        asked = (targets != UNASKED).to(told.dtype)
        return (told * asked).sum(dim=2) / asked.sum(dim=2).clamp(min=1)
    clients, rows, classes = outputs.shape
    if classes >= LANES:
        return F.log_softmax(outputs, dim=2).gather(2, targets.unsqueeze(2)).squeeze(2)
    # Classes too few to fill a vector of the processor are slow, so vectors go over the rows of all clients. They are
    # all full, since what is left over is computed otherwise, and would depend on how many clients there are.
    count = clients * rows
    flat = outputs.reshape(count, classes).T
    full = torch.cat((flat, flat.new_zeros(classes, -count % LANES)), dim=1)
    return F.log_softmax(full, dim=0)[:, :count].gather(0, targets.reshape(1, count)).view(clients, rows)


LANES = 16
"""Numbers in the widest vector of a processor."""
