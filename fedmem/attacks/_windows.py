"""Texts of which the next token is asked at each place: what a search moves, and the gradient that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.components import GradientTarget
from fedmem.losses import mean_loss
from fedmem.types import IntArray, Params

if TYPE_CHECKING:
    from torch import Tensor, nn

LIKELY_WHOLE = 4.0
"""How much likelier, as a logit, a row is to fill its length than to end after one target, when a search begins."""


@dataclass(frozen=True, kw_only=True)
class Soft:
    """n texts that are not decided yet: `tokens` (n, L + 1, V) logits at each place, `ends` (n, L) of the last target.

    A token is read and asked for: both follow from the same shares, so that the embedding of a place is the mean of the
    embeddings by its shares. A place counts by the probability that the text has not ended before it.
    """

    tokens: Tensor
    ends: Tensor

    @staticmethod
    def start(noise: Tensor) -> Soft:
        """From (n, L + 1, V) standard normal numbers."""
        import torch

        length = noise.shape[1] - 1
        ends = torch.linspace(-LIKELY_WHOLE, 0.0, length, dtype=noise.dtype, device=noise.device)
        return Soft(tokens=0.1 * noise, ends=ends.expand(len(noise), length).clone())

    def decided(self, allowed: Tensor) -> IntArray:
        """(n, L + 1) the likeliest token at each place, of equal ones the first, and -1 after the likeliest end."""
        import torch

        found = self.tokens.masked_fill(~allowed, -torch.inf).argmax(2).cpu().numpy()
        last = self.ends.argmax(1).cpu().numpy() + 1
        return np.where(np.arange(found.shape[1]) <= last[:, None], found, -1)


def slopes_of(target: GradientTarget, name: str, soft: Soft, allowed: Tensor) -> Params:
    """The gradient at undecided texts, as it would be with these shares; can be differentiated again.

    `name` is the layer that reads the tokens, `allowed` (L + 1, V) the tokens that may stand at each place.
    """
    import torch
    from torch.func import functional_call

    leaves = {key: value.detach().float().requires_grad_() for key, value in target.params.items()}
    count, width = soft.ends.shape
    tokens = torch.zeros((count, width), dtype=torch.int64, device=soft.ends.device)
    with torch.enable_grad():
        shares = soft.tokens.masked_fill(~allowed, -torch.inf).softmax(2)
        there = soft.ends.softmax(1).flip(1).cumsum(1).flip(1)
        with given(target.model, name, shares[:, :-1] @ leaves[f"{name}.weight"]):
            logs = functional_call(target.model, leaves, (tokens,)).log_softmax(2)
        told = -(logs * shares[:, 1:]).sum(2)
        loss = ((told * there).sum(1) / there.sum(1)).mean()
        return _slopes(loss, leaves, target.gradient, further=True)


def slopes_at(target: GradientTarget, windows: IntArray) -> Params:
    """The gradient of the mean loss at decided texts (n, L + 1), -1 after their ends, as clients train."""
    import torch
    from torch.func import functional_call

    leaves = {key: value.detach().float().requires_grad_() for key, value in target.params.items()}
    device = next(iter(leaves.values())).device
    inputs, targets = (torch.from_numpy(part).to(device) for part in (np.maximum(windows[:, :-1], 0), windows[:, 1:]))
    with torch.enable_grad():
        loss = mean_loss(functional_call(target.model, leaves, (inputs,)), targets)
    return _slopes(loss, leaves, target.gradient, further=False)


def _slopes(loss: Tensor, leaves: Params, wanted: Params, *, further: bool) -> Params:
    """The slopes of a loss in the parameters of these names."""
    import torch

    found = torch.autograd.grad(loss, [leaves[key] for key in wanted], create_graph=further, materialize_grads=True)
    return dict(zip(wanted, found, strict=True))


@contextmanager
def given(model: nn.Module, name: str, embeddings: Tensor) -> Iterator[None]:
    """The embedding of the model answers with these, whatever it is asked."""
    hook = model.get_submodule(name).register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()
