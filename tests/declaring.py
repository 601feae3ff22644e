"""Components of a user's own that declare what they compare, and clients that do or do not say their schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientState, Outcome, Schedule
from fedmem.contracts.estimator import Estimate, View
from fedmem.contracts.evidence import Transition
from fedmem.contracts.measure import Measure
from fedmem.contracts.measurement import Label, Level, Measurement, Reading
from fedmem.estimators.client_influence import ClientInfluence


@dataclass(frozen=True, kw_only=True)
class Silent:
    """A probe that compares nothing."""

    every: int | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Sequence[Transition], context: Any) -> Sequence[tuple[Transition, Reading]]:
        return ()

    def summarise(self, measurements: Sequence[Measurement], seed: int) -> Sequence[Measurement]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Comparing(Silent):
    """A probe that compares with held-out examples, and reads gradients."""

    compares_held_out: ClassVar[bool] = True
    reads_gradients: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Guessing:
    """An estimator that is wrong where an example that is out is trained on all the same."""

    compares_held_out: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Ranking(Guessing):
    """An estimator that ranks canaries."""

    compares_held_out: ClassVar[bool] = False
    needs_canaries: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class AtClients(Guessing):
    """An estimator that reads the test set at the models of clients."""

    compares_held_out: ClassVar[bool] = False
    needs_test: ClassVar[tuple[Level, ...]] = ("local",)


@dataclass(frozen=True, kw_only=True)
class OverClients:
    """An estimator over clients that are left out."""

    measures: ClassVar[tuple[Measure, ...]] = ClientInfluence.measures
    row_labels: ClassVar[tuple[Label, ...]] = ClientInfluence.row_labels
    min_runs: ClassVar[int] = 4
    compares_clients: ClassVar[bool] = True

    def estimate(self, view: View) -> Sequence[Estimate]:
        return ()

    def tests(self, view: View) -> Sequence[tuple[int | None, Reading]]:
        return ClientInfluence().tests(view)


@dataclass(frozen=True, kw_only=True)
class Unscheduled:
    """Descent with steps of 1, 1/2, 1/3, ... of `lr`, of which nobody is told."""

    lr: float = 0.1
    batch_size: int = 5

    @cached_property
    def _inner(self) -> Sgd:
        return Sgd(lr=self.lr, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, rng)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        import torch

        return {"params": before, "count": {"steps": torch.zeros(())}}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        count = state["count"]["steps"] + 1
        slope = gradient(state["params"])
        params = {name: value - self.lr / count * slope[name] for name, value in state["params"].items()}
        return {"params": params, "count": {"steps": count}}

    def final(self, state: ClientState, before: Params) -> Outcome:
        return Outcome(sent=state["params"], kept=state["params"])


@dataclass(frozen=True, kw_only=True)
class Scheduled(Unscheduled):
    """The same, and it says so."""

    def schedule(self, round_number: int, num_steps: int) -> Schedule:
        return Schedule(learning_rates=self.lr / np.arange(1, num_steps + 1))


CALLS: list[int] = []


@dataclass(frozen=True, kw_only=True)
class Moody(Unscheduled):
    """Descent that depends on how often it was called, so that a record of its operations would be wrong."""

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        CALLS.append(1)
        after = super().step(state, gradient)
        return {**after, "params": {n: value + 0.1 * (len(CALLS) % 2) for n, value in after["params"].items()}}


@dataclass(frozen=True, kw_only=True)
class OtherFacts(OverClients):
    """An estimator that declares a measure of another one with other facts."""

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure(name="memorisation", title="other", means="Another number.", unit="bits", direction="neither"),
    )
