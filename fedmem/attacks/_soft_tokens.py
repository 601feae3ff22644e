"""Texts of which the next token is asked at each place: what a search moves, and the gradient that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedmem.attacks._labels import last_bias_name
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.attack import GradientTarget
from fedmem.modalities.loss import mean_loss

if TYPE_CHECKING:
    from torch import Tensor, nn

CERTAIN_LOGIT = 4.0
"""How much likelier, as a logit, a row is to fill its length than to end after one target, when a search begins."""


@dataclass(frozen=True, kw_only=True)
class Soft:
    """n texts that are not decided yet: `tokens` (n, L + 1, V) logits at each place, `ends` (n, L) of the last target.

    A token is both an input and a target, by the same shares. So the embedding of a place is the mean of the embeddings
    by its shares. A place counts by the probability that the text has not ended before it.
    """

    tokens: Tensor
    ends: Tensor

    @staticmethod
    def start(noise: Tensor) -> Soft:
        """From (n, L + 1, V) standard normal numbers."""
        import torch

        length = noise.shape[1] - 1
        ends = torch.linspace(-CERTAIN_LOGIT, 0.0, length, dtype=noise.dtype, device=noise.device)
        return Soft(tokens=0.1 * noise, ends=ends.expand(len(noise), length).clone())

    def most_probable_tokens(self, allowed: Tensor) -> IntArray:
        """(n, L + 1) the modal token at each place, of equally probable ones the first; -1 after the modal end."""
        import torch

        tokens = self.tokens.masked_fill(~allowed, -torch.inf).argmax(2).cpu().numpy()
        last = self.ends.argmax(1).cpu().numpy() + 1
        return np.where(np.arange(tokens.shape[1]) <= last[:, None], tokens, -1)


ROUNDING = 2 * 2.0**-23
"""The relative change, for each client, that a weight may show in a mean of float32 although no client changed it.

The mean of K equal weights w is the sum of K products with shares. Let u = 2^-24, half the distance of float32 at 1.
Shares that were divided by their own sum add up to 1 within K u. Each product is rounded once more, and so is each of
K - 1 sums, none of which is larger than about w. The error is at most 2 K u |w| plus terms in u squared. This is twice
that.
"""


def were_read(target: GradientTarget, name: str) -> Tensor:
    """(V,) whether the embedding of a token was moved by what was sent, so that somebody read it; all if none was.

    A gradient, or what one client sent, has exact zeros elsewhere. A mean over several clients is rounded. There a row
    counts only where some weight moved by more than `ROUNDING` explains, or where a weight that was 0 moved at all.

    - Where the embedding was not sent, nothing is known, and all are True.
    """
    import torch

    weight = target.params[f"{name}.weight"].detach().double()
    sent = (target.gradient if target.update is None else target.update).get(f"{name}.weight")
    all_tokens = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
    if sent is None:
        return all_tokens
    several = target.update is not None and target.clients > 1
    is_changed = (sent.detach().double().abs() > (target.clients * ROUNDING * weight.abs() if several else 0.0)).any(1)
    return is_changed if is_changed.any() else all_tokens


def may_stand(target: GradientTarget, name: str, read: Tensor) -> Tensor:
    """(L + 1, V) which tokens may stand at each place of a text: where it may end, also those asked for and not `read`.

    The first token is always read, and the last place of a row never. Between them a text may end, with a token that is
    not read. Such a token shows in the gradient of the output's bias, the mean prediction minus the share of targets.
    That is negative only for targets, namely those that occur more often than predicted. Without that bias, any token
    may be the last.

    - A rarer last token is missed. Of 20 untrained transformers of 97 tokens, 11 missed a token that was a target once
      in eight rows of up to 15 targets.
    """
    (length,) = target.input_shape
    bias = last_bias_name(target.gradient, target.num_classes)
    is_target = read.new_ones(len(read)) if bias is None else target.gradient[bias].detach() < 0
    allowed = read.new_ones((length + 1, len(read)))
    allowed[0], allowed[1:-1] = read, read | is_target
    return allowed


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
        survival = soft.ends.softmax(1).flip(1).cumsum(1).flip(1)
        with replace_embedding(target.model, name, shares[:, :-1] @ leaves[f"{name}.weight"]):
            logs = functional_call(target.model, leaves, (tokens,)).log_softmax(2)
        losses = -(logs * shares[:, 1:]).sum(2)
        loss = ((losses * survival).sum(1) / survival.sum(1)).mean()
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


def _slopes(loss: Tensor, leaves: Params, gradient: Params, *, further: bool) -> Params:
    """The slopes of a loss in the parameters of these names."""
    import torch

    slopes = torch.autograd.grad(loss, [leaves[key] for key in gradient], create_graph=further, materialize_grads=True)
    return dict(zip(gradient, slopes, strict=True))


@contextmanager
def replace_embedding(model: nn.Module, name: str, embeddings: Tensor) -> Iterator[None]:
    """The embedding of the model answers with these, whatever it is asked."""
    hook = model.get_submodule(name).register_forward_hook(lambda *_: embeddings)
    try:
        yield
    finally:
        hook.remove()
