"""Stochastic gradient descent with differential privacy of records."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientState, Outcome, PerExample, Schedule
from fedmem.contracts.data import Examples
from fedmem.contracts.deduplication import Deduplication


@dataclass(frozen=True, kw_only=True)
class DpSgd:
    """`sgd` whose gradients hide each record: clipped one by one, summed, noisy (Abadi et al., 2016).

    The gradient of a step is `(sum_i g_i min(1, S / |g_i|) + z S n) / batch_size` over the records of a batch, `n`
    standard normal. A batch includes each record independently with probability `batch_size` / rows, so that its size
    varies and may be 0. The divisor is nevertheless the expected size, and noise is added even to an empty batch. All
    other steps are those of `sgd` without clipping. Every message of the client is protected, also from the server; the
    model that the client holds is not. A record is a row of the data, and for a text one window of it.

    Guarantees:

    - one record moves the gradient of a step by at most S / `batch_size`, whatever it is;
    - neighbours have the same number of rows. One record is replaced by zero (`zero_out`, the default) or by another
      record (`replace`). The number of rows is public, since the sampling rate, `batch_size` / rows, and the steps in
      an epoch depend on it. So `add_remove` is refused: one more record changes how often all others are drawn;
    - clipping and noise are those of Opacus, to rounding;
    - the goldfish loss leaves tokens of a record out by this record alone, so the guarantee stays as it is;
    - deduplication is refused. One record decides whether a duplicate of it is trained on, and so how many rows there
      are. Data sets that differ in one record would no longer be neighbours of the guarantee;
    - a client of few rows draws each with a larger probability, so its guarantee is weaker: `privacy` has the weakest.

    Fields:
        lr: Learning rate of the first round.
        decay: Factor of the learning rate from one round to the next.
        momentum: Share of the velocity carried to the next step; it starts at zero in every round.
        clip: S, the largest norm of the gradient of one record, over all parameters.
        noise_multiplier: The standard deviation z of the noise on the sum divided by S. With null it is found once the
            data are there. It is the least z with which no client exceeds the scenario's `privacy.target_epsilon`, were
            each to take part whenever the sampler allows it.
        epochs: Expected passes over the client's rows in each round; ignored where `steps` is given.
        steps: Number of local steps in each round.
        batch_size: Rows expected in a step, at most all.
        goldfish: k of the goldfish loss, for texts, as in `sgd`.
        goldfish_context: How many tokens before a token decide by their hash whether it is left out.
        deduplicate: Refused, see below; deduplicate the data beforehand.

    >>> DpSgd(steps=3, batch_size=4).batches(0, np.random.default_rng(0)).shape
    (0, 1)

    Reference: Abadi et al. (2016), deep learning with differential privacy.
    """

    steps_by_rows: ClassVar[bool] = True

    lr: Annotated[float, Gt(0)] = 0.1
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    clip: Annotated[float, Gt(0)] = 1.0
    noise_multiplier: Annotated[float, Ge(0)] | None = 1.0
    epochs: Annotated[int, Gt(0)] = 1
    steps: Annotated[int, Gt(0)] | None = None
    batch_size: Annotated[int, Gt(0)] = 10
    goldfish: Annotated[Annotated[int, Ge(2)] | None, "identity_neutral"] = None
    goldfish_context: Annotated[int, Gt(0), "identity_neutral"] = 13
    deduplicate: Annotated[Literal["exact", "near"] | None, "identity_neutral"] = None

    @property
    def per_example(self) -> PerExample:
        """How the gradient of a step is made of those of its records; noise that is still left open is NaN."""
        noise = math.nan if self.noise_multiplier is None else self.noise_multiplier
        return PerExample(clip=self.clip, noise_multiplier=noise, expected=self.batch_size)

    @cached_property
    def _sgd(self) -> Sgd:
        return Sgd(
            lr=self.lr,
            decay=self.decay,
            momentum=self.momentum,
            epochs=self.epochs,
            steps=self.steps,
            batch_size=self.batch_size,
            goldfish=self.goldfish,
            goldfish_context=self.goldfish_context,
            deduplicate=self.deduplicate,
        )

    @property
    def deduplication(self) -> Deduplication | None:
        """As `sgd`; a scenario with any is refused."""
        return self._sgd.deduplication

    @property
    def text_fields(self) -> tuple[str, ...]:
        """As `sgd`."""
        return self._sgd.text_fields

    def training_targets(self, rows: Examples) -> IntArray:
        """As `sgd`."""
        return self._sgd.training_targets(rows)

    def rate(self, num_examples: int) -> float:
        """Probability with which a record is in a batch."""
        return min(1.0, self.batch_size / num_examples) if num_examples else 0.0

    def num_steps(self, num_examples: int) -> int:
        """Steps in a round for a client with this many rows; none where it has no rows."""
        return self._sgd.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        """(steps, widest batch) positions into the client's rows, -1 where a batch has less; at least one column."""
        is_drawn = rng.random((self.num_steps(num_examples), num_examples)) < self.rate(num_examples)
        width = max(1, int(is_drawn.sum(axis=1).max(initial=0)))
        # those that are drawn come first, in their order
        order = np.argsort(~is_drawn, axis=1, kind="stable")[:, :width]
        positions = np.where(np.take_along_axis(is_drawn, order, axis=1), order, -1)
        return positions if positions.shape[1] else np.full((len(is_drawn), 1), -1, dtype=np.int64)

    def schedule(self, round_number: int, num_steps: int) -> Schedule:
        """As `sgd`."""
        return self._sgd.schedule(round_number, num_steps)

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """As `sgd`."""
        return self._sgd.init(before, payload, memory)

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        """As `sgd`, from a gradient that is noisy already."""
        return self._sgd.step(state, gradient)

    def final(self, state: ClientState, before: Params) -> Outcome:
        """Send the model and keep the same."""
        return self._sgd.final(state, before)
