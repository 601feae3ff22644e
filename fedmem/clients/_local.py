"""Local stochastic gradient descent: what all clients here do between receiving a model and sending one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientState, Outcome, Schedule
from fedmem.contracts.data import Examples
from fedmem.contracts.deduplication import Deduplication
from fedmem.modalities.text.goldfish import goldfish_targets
from fedmem.training.updates import clip_update


@dataclass(frozen=True, kw_only=True)
class LocalSgd(ABC):
    """Mini-batch SGD for a number of epochs or steps, each epoch in an order of its own.

    One step is `g = clipped(grad) + linear + mu * (w - w_0) + weight_decay * w`, `v = momentum * v + g`,
    `w = w - lr_r * v`. Here `clipped(g) = g * min(1, clip / |g|)` with the norm over all parameters. `w_0` is the model
    that the round began with, and `lr_r = lr * decay ** (r - 1)` in round r. `mu` (`fedprox`, `feddyn`) and `linear`
    (`scaffold`, `feddyn`) are from the server payload, else 0. They are a pull towards the model sent, and the gradient
    of a linear term of the loss. The velocity starts at zero in every round.

    Fields:
        lr: Learning rate of the first round.
        decay: Factor of the learning rate from one round to the next, whether or not the client takes part.
        momentum: Share of the velocity carried to the next step.
        weight_decay: Pull towards zero, per step, multiplied by `lr`.
        clip: Largest norm of the gradient of a batch, over all parameters; left out, gradients are not clipped.
        epochs: Passes over the client's rows in each round; ignored where `steps` is given.
        steps: Number of local steps in each round, cycling through the rows as often as needed.
        batch_size: Rows in a step; the last batch of an epoch may be smaller.
        goldfish: k of the goldfish loss, for texts. About one token in k is left out of the training loss.
        goldfish_context: How many tokens before a token decide by their hash whether it is left out.
        deduplicate: Leave out rows that are duplicates of earlier rows of the same client: `exact` for equal rows,
            `near` for texts that share n-grams.
        overlap: The share of n-grams of 5 tokens, of all in either of two texts, from which they are near duplicates.

    Guarantees:

    - the goldfish loss leaves out the same tokens of a row in every run and epoch. After its first `goldfish_context`
      tokens, a passage has the same gaps in every row, so that no repetition reveals them. Earlier gaps depend on the
      row, and copies in several rows reveal them. The loss of a row is the mean over the other tokens. What is measured
      asks for all tokens;
    - of duplicates the first is kept: own rows before audit examples. A client with fewer rows takes fewer steps and
      counts for less where clients count by size. The rule does not look at coins;
    - clipping acts on the mean gradient of a batch, not of each example. It steadies training and gives no privacy;
    - a gradient of zero stays zero under any `clip`; `decay` of 1, `mu` and `linear` of 0 change no bit.

    References: Hans et al. (2024), Be like a goldfish, don't memorize!, for the goldfish loss; Lee et al. (2022),
    Deduplicating training data makes language models better.
    """

    follows: ClassVar[Mapping[str, str]] = {"proximal-mu": "mu"}

    lr: Annotated[float, Gt(0)] = 0.1
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Gt(0)] | None = None
    epochs: Annotated[int, Gt(0)] = 1
    steps: Annotated[int, Gt(0)] | None = None
    batch_size: Annotated[int, Gt(0)] = 10
    goldfish: Annotated[Annotated[int, Ge(2)] | None, "identity_neutral"] = None
    goldfish_context: Annotated[int, Gt(0), "identity_neutral"] = 13
    deduplicate: Annotated[Literal["exact", "near"] | None, "identity_neutral"] = None
    overlap: Annotated[float, Gt(0), Le(1), "identity_neutral"] = 0.5

    @property
    def deduplication(self) -> Deduplication | None:
        """How duplicates are found among the client's rows."""
        return None if self.deduplicate is None else Deduplication(by=self.deduplicate, overlap=self.overlap)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The fields that are set and work on rows of tokens alone."""
        is_set = {"goldfish": self.goldfish is not None, "deduplicate": self.deduplicate == "near"}
        return tuple(name for name, value in is_set.items() if value)

    def training_targets(self, rows: Examples) -> IntArray:
        """The targets that the loss asks for."""
        if self.goldfish is None:
            return rows.targets
        return goldfish_targets(rows.inputs, rows.targets, self.goldfish, self.goldfish_context)

    def num_steps(self, num_examples: int) -> int:
        """Steps in a round for a client with this many rows; none where it has no rows."""
        return self._steps_on(num_examples)

    def _steps_on(self, num_examples: int) -> int:
        """Steps on this many rows that are trained on."""
        if num_examples == 0:
            return 0
        return self.steps if self.steps is not None else self.epochs * -(-num_examples // self.batch_size)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        """(steps, batch_size) positions into the client's rows, -1 where the last batch of an epoch is short."""
        width = self.batch_size
        if self.steps is None and self.epochs == 1 and num_examples:
            # what most scenarios do, for every client of every round
            if num_examples % width == 0:
                return rng.permutation(num_examples).reshape(-1, width)
            order = np.empty(num_examples + -num_examples % width, dtype=np.int64)
            order[:num_examples] = rng.permutation(num_examples)
            order[num_examples:] = -1
            return order.reshape(-1, width)
        num_steps = self._steps_on(num_examples)
        per_epoch = -(-num_examples // width) if num_examples else 1
        padded = np.full((-(-num_steps // per_epoch), per_epoch * width), -1, dtype=np.int64)
        for epoch in padded:
            epoch[:num_examples] = rng.permutation(num_examples)
        return padded.reshape(-1, width)[:num_steps]

    def schedule(self, round_number: int, num_steps: int) -> Schedule:
        """The same learning rate in all steps of a round."""
        rate = self.lr * self.decay ** (round_number - 1)
        return Schedule(learning_rates=np.full(num_steps, rate), weight_decay=self.weight_decay)

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """Start from the global model with a velocity of zero."""
        state: ClientState = {"params": before}
        if self.momentum:
            state["velocity"] = {name: value.new_zeros(value.shape) for name, value in before.items()}
        if self.decay != 1:
            state["rate"] = {"lr": self.lr * self.decay ** (payload["round"].double() - 1)}
        linear = {name: payload[f"linear:{name}"] for name in before if f"linear:{name}" in payload}
        if linear:
            state["linear"] = linear
        if "mu" in payload:
            state |= {"start": before, "pull": {"mu": payload["mu"]}}
        return state

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        """One step on the current batch."""
        params = state["params"]
        direction = gradient(params)
        if self.clip is not None:
            direction = clip_update(direction, self.clip)
        if "linear" in state:
            direction = {name: g + state["linear"][name] for name, g in direction.items()}
        if "pull" in state:
            mu, start = state["pull"]["mu"], state["start"]
            direction = {n: g + mu.to(g.dtype) * (params[n] - start[n]) for n, g in direction.items()}
        if self.weight_decay:
            direction = {name: g + self.weight_decay * params[name] for name, g in direction.items()}
        after = dict(state)
        if self.momentum:
            direction = {name: self.momentum * state["velocity"][name] + g for name, g in direction.items()}
            after["velocity"] = direction
        if "rate" in state:
            lr = state["rate"]["lr"]
            after["params"] = {name: value - lr.to(value.dtype) * direction[name] for name, value in params.items()}
        else:
            after["params"] = {name: value - self.lr * direction[name] for name, value in params.items()}
        return after

    def _send_all(self, state: ClientState) -> Outcome:
        """The outcome of a client that sends its model and keeps the same, with its rate where a server needs it."""
        report = {}
        if "linear" in state:
            import torch

            report["lr"] = state["rate"]["lr"] if "rate" in state else torch.tensor(self.lr, dtype=torch.float64)
        return Outcome(sent=state["params"], kept=state["params"], report=report)

    @abstractmethod
    def final(self, state: ClientState, before: Params) -> Outcome:
        """The outcome of a client: the model sent, the model kept, its client state and its metrics."""
