"""Training of clients whose steps clip the gradient of every example and add noise: a stack of clients and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fedmem.components import ClientState, Outcome, PrivateAlgorithm
from fedmem.seeding import Streams
from fedmem.training import Executor, OneByOne, gathered
from fedmem.types import FloatArray, IntArray, Params
from fedmem.work import Done, Work, pick

NOISE = "noise of local steps"
"""The streams of the noise: one for each run, round and client, from which its steps are drawn in turn."""


class PrivateSteps(Executor):
    """Trains clients with a `PerExample` gradient, one after the other, the examples of a batch as one stack.

    Guarantees:

    - noise is that of (seed, run, round, client), whoever else trains;
    - an empty batch is a step of noise alone.
    """

    name = "per_example"

    def __init__(self, *arguments: Any, seed: int, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._plain = OneByOne(*arguments, **settings)
        self._noise = Streams(seed, NOISE)
        assert isinstance(self._client, PrivateAlgorithm)
        self._how = self._client.per_example

    def train_all(self, work: Work) -> Done:
        """See `Executor.train_all`."""
        return gathered(work, [self._client_of(work, i) for i in range(len(work))])

    def attempt_all(self, work: Work) -> tuple[Done | None, dict[int, str]]:
        """See `Executor.attempt_all`; nothing here is the client's own code."""
        return self.train_all(work), {}

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        return self._plain.logits(models, inputs)

    def _client_of(self, work: Work, i: int) -> tuple[Outcome, float]:
        before = self._here(work.before(i))
        offer, memory = self._here(pick(work.offer, i)), self._here(work.memory_of(i))
        place = work.place(i)
        state, losses = self._client.init(before, offer, memory), []
        (rng,) = self._noise.each(run=[place.run], round=place.round, client=[place.client])
        for batch in work.batches[i, : work.steps[i]]:
            noise = {name: torch.from_numpy(rng.standard_normal(tuple(v.shape))) for name, v in before.items()}
            state, loss = self._step(state, batch[batch >= 0], self._here(noise))
            losses += loss
        outcome = self._client.final(state, before)
        if self._outgoing:
            drawn = pick(self._here(self._outgoing.draws(before, [place])), 0)
            outcome = replace(outcome, sent=self._outgoing.sent(outcome.sent, before, drawn))
        return outcome, float(np.mean(losses)) if losses else float("nan")

    def _step(self, state: ClientState, rows: IntArray, noise: Params) -> tuple[ClientState, list[float]]:
        met: list[float] = []

        def gradient(params: Params) -> Params:
            total = {name: torch.zeros_like(value) for name, value in params.items()}
            if len(rows):
                losses, each = self._gradients(params, rows)
                met.append(float(losses.mean()))
                total = clipped_sum(each, self._how.clip)
            scale = self._how.noise_multiplier * self._how.clip
            noisy = {name: value.double() + scale * noise[name] for name, value in total.items()}
            return {name: (value / self._how.expected).to(params[name].dtype) for name, value in noisy.items()}

        return self._client.step(state, gradient), met

    def _gradients(self, params: Params, rows: IntArray) -> tuple[Tensor, Params]:
        """Loss (B,) and gradient (B, ...) of each example: each has leaves of its own, so one backward pass does."""
        chosen = torch.from_numpy(rows).to(self._device)
        inputs, targets = self._inputs[chosen], self._targets[chosen]
        leaves = {
            name: value.detach().expand(len(rows), *value.shape).clone().requires_grad_()
            for name, value in params.items()
        }

        def loss(own: Params, one: Tensor, target: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(self._model, own, (one[None],)), target[None])

        losses = torch.vmap(loss)(leaves, inputs, targets)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return losses.detach(), dict(zip(leaves, found, strict=True))


def clipped_sum(each: Params, clip: float) -> Params:
    """The sum over examples of gradients (B, ...) that are shortened to norm `clip` over all parameters.

    The norm is a millionth larger than it is, as in Opacus, so that a gradient of zero is no problem; a gradient that
    is not finite counts as zero.
    """
    squares = torch.stack([value.double().flatten(1).square().sum(dim=1) for value in each.values()]).sum(dim=0)
    sound = squares.isfinite()
    factor = torch.where(sound, (clip / (squares.sqrt() + 1e-6)).clamp(max=1), torch.zeros_like(squares))

    def over(values: Tensor, like: Tensor) -> Tensor:
        return values.reshape((-1,) + (1,) * (like.ndim - 1))

    total = {}
    for name, value in each.items():
        kept = torch.where(over(sound, value), value, torch.zeros_like(value))
        total[name] = (kept * over(factor, value).to(value.dtype)).sum(dim=0)
    return total
