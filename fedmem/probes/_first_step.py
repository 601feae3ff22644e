"""A client algorithm that ends after its first step, as an attack on that step simulates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, ClientState, Outcome, PerExample, PrivateAlgorithm


@dataclass(frozen=True, kw_only=True)
class FirstStep:
    """The client algorithm `inner`, stopped after one step: it has only the first of its batches.

    >>> from fedmem.clients.sgd import Sgd
    >>> client = FirstStep(inner=Sgd(epochs=2, batch_size=4))
    >>> client.num_steps(10), client.num_steps(0), client.batches(10, np.random.default_rng(0)).shape
    (1, 0, (1, 4))
    """

    inner: ClientAlgorithm

    @property
    def batch_size(self) -> int:
        """Rows in a step."""
        return self.inner.batch_size

    def num_steps(self, num_examples: int) -> int:
        """One, or none where the client takes none."""
        return min(1, self.inner.num_steps(num_examples))

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        """(1, batch_size) the first batch."""
        return self.inner.batches(num_examples, rng)[:1]

    def init(self, before: Params, payload: Params, memory: Params) -> ClientState:
        """As the client."""
        return self.inner.init(before, payload, memory)

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        """As the client."""
        return self.inner.step(state, gradient)

    def final(self, state: ClientState, before: Params) -> Outcome:
        """As the client."""
        return self.inner.final(state, before)


@dataclass(frozen=True, kw_only=True)
class PrivateFirstStep(FirstStep):
    """`FirstStep` of a client that hides its records, so that attacks see that it does."""

    inner: PrivateAlgorithm

    @property
    def per_example(self) -> PerExample:
        """As the client."""
        return self.inner.per_example

    def rate(self, num_examples: int) -> float:
        """As the client."""
        return self.inner.rate(num_examples)


def first_step_of(client: ClientAlgorithm) -> FirstStep:
    """The client, stopped after its first step; a client that hides records still hides them."""
    if isinstance(client, PrivateAlgorithm):
        return PrivateFirstStep(inner=client)
    return FirstStep(inner=client)
