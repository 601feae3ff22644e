"""A strategy, a client and a sampler that use every seam between server and client, for tests of the engine."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientState, Outcome, Schedule
from fedmem.contracts.sampler import History, Sampler
from fedmem.strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean
from fedmem.strategies.dp_fedavg import DpFedAvg
from tests.narrowing import present


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Offers each client how often it has taken part, and the last aggregated update; averages by reported norm."""

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        runs = len(next(iter(before.values())))
        turns = torch.zeros((runs, num_clients), dtype=torch.float64)
        return {"turns": turns} | {name: torch.zeros_like(value) for name, value in before.items()}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        offer = {"turns": state["turns"].gather(1, clients.clamp(min=0))}
        for name, value in state.items():
            if name != "turns":
                offer[f"last:{name}"] = value[:, None].expand(-1, clients.shape[1], *value.shape[1:])
        return offer

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        after = weighted_mean(rnd.sent, share(rnd.report["norm"].nan_to_num(), rnd.present))
        turns = state["turns"].scatter_add(1, rnd.clients.clamp(min=0), rnd.present.double())
        return after, {"turns": turns} | {name: after[name] - value for name, value in rnd.before.items()}


@dataclass(frozen=True, kw_only=True)
class Carrying:
    """Descent whose velocity waits on the client for its next round; steps shrink with the turns that it is told of."""

    lr: float = 0.2
    batch_size: int = 8

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, rng)

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=self.lr, batch_size=self.batch_size)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        velocity = memory or {name: torch.zeros_like(value) for name, value in before.items()}
        velocity = {name: v + 0.1 * offer[f"last:{name}"] for name, v in velocity.items()}
        told = {"turns": offer["turns"], "round": offer["round"]}
        return {"params": before, "velocity": velocity, "told": told}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        moved = {n: 0.5 * state["velocity"][n] + g for n, g in gradient(state["params"]).items()}
        lr = (self.lr / (1 + state["told"]["turns"])).float()
        params = {name: value - lr * moved[name] for name, value in state["params"].items()}
        return {**state, "params": params, "velocity": moved}

    def final(self, state: ClientState, before: Params) -> Outcome:
        squares = torch.stack([(state["params"][n] - value).double().square().sum() for n, value in before.items()])
        report = {"norm": squares.sum().sqrt(), **state["told"]}
        return Outcome(sent=state["params"], kept=state["params"], memory=state["velocity"], report=report)


@dataclass(frozen=True, kw_only=True)
class Scheduled(Carrying):
    """The same, read by attacks with the rate of its first turn: right or wrong, all engines must attack alike."""

    def schedule(self, round_number: int, num_steps: int) -> Schedule:
        return Schedule(learning_rates=np.full(num_steps, self.lr))


@dataclass(frozen=True, kw_only=True)
class Secretive:
    """Trains and keeps the result, but sends back what it was given."""

    lr: float = 0.2
    batch_size: int = 8

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=self.lr, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, rng)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return self._inner.init(before, offer, memory)

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        return self._inner.step(state, gradient)

    def final(self, state: ClientState, before: Params) -> Outcome:
        return Outcome(sent=before, kept=state["params"])


@dataclass(frozen=True, kw_only=True)
class Deaf:
    """A client that reads no offer."""

    lr: float = 0.1
    batch_size: int = 8

    def num_steps(self, num_examples: int) -> int:
        return 1

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return np.arange(min(num_examples, 8))[None]

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return {"params": before}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        steps = gradient(state["params"])
        return {"params": {name: value - self.lr * steps[name] for name, value in state["params"].items()}}

    def final(self, state: ClientState, before: Params) -> Outcome:
        return Outcome(sent=state["params"], kept=state["params"])


SEEN: list[History] = []
"""Every history that `Loudest` was shown, as it was then."""


@dataclass(frozen=True, kw_only=True)
class Loudest:
    """The clients with the largest last loss; those that never trained first."""

    needs: ClassVar[tuple[str, ...]] = ("last_loss", "last_norm")

    size: int = 2

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        SEEN.append(deepcopy(history))
        loss = np.where(np.isnan(history.last_loss), np.inf, history.last_loss)
        return np.sort(np.argsort(-loss, kind="stable")[: self.size])


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Looks at its rows, and so knows its loss, but learns nothing."""

    batch_size: int = 64

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=0.1, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, rng)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        return {"params": before}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        slopes = gradient(state["params"])
        return {"params": {name: value + 0.0 * slopes[name] for name, value in state["params"].items()}}

    def final(self, state: ClientState, before: Params) -> Outcome:
        return Outcome(sent=state["params"], kept=state["params"])


@dataclass(frozen=True, kw_only=True)
class Debiased:
    """The mean of all updates, estimated from those that came by weights 1 / (N p)."""

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return {"clients": torch.full((len(next(iter(before.values()))),), float(num_clients), dtype=torch.float64)}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return {}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        weights = torch.where(rnd.present, 1 / (rnd.report["probability"] * state["clients"][:, None]), 0.0)
        updates = {name: value - rnd.before[name][:, None] for name, value in rnd.sent.items()}
        moved = weighted_mean(updates, weights)
        return {name: value + moved[name] for name, value in rnd.before.items()}, state


@dataclass(frozen=True, kw_only=True)
class Silent:
    """A sampler that does not say how it picks: the first `size` clients."""

    size: int = 2

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        return np.arange(self.size)


@dataclass(frozen=True, kw_only=True)
class Outspoken(Silent):
    """The same, that says so: it reads no value of a client, always picks those, and leaves no round out."""

    reads: ClassVar[tuple[str, ...]] = ()

    def probabilities(self, round_number: int, history: History) -> FloatArray | None:
        return (np.arange(history.num_clients) < self.size).astype(np.float64)

    def min_separation(self, num_clients: int) -> int:
        return 1


@dataclass(frozen=True, kw_only=True)
class Together:
    """Picks everybody with probability 1/2; rows of client 0 decide who comes together. It declares nothing."""

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        heads, first = rng.random() < 0.5, np.arange(history.num_clients) < history.num_clients // 2
        if history.sizes[0] > 100:
            return np.arange(history.num_clients if heads else 0)
        return np.flatnonzero(first if heads else ~first)

    def probabilities(self, round_number: int, history: History) -> FloatArray | None:
        return np.full(history.num_clients, 0.5)


@dataclass(frozen=True, kw_only=True)
class OneOf:
    """Picks as one of several samplers, in turn; it reads nothing itself."""

    reads: ClassVar[tuple[str, ...]] = ()

    samplers: tuple[Sampler, ...] = ()

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        return self.samplers[round_number % len(self.samplers)].cohort(round_number, history, rng)


@dataclass(frozen=True, kw_only=True)
class Curious(Silent):
    """Picks those with most rows, or with most atypical examples, and says so."""

    by: str = "sizes"

    @property
    def reads(self) -> tuple[str, ...]:
        """What it sorts by."""
        return ("rows" if self.by == "sizes" else "atypical",)

    def cohort(self, round_number: int, history: History, rng: np.random.Generator) -> IntArray:
        return np.flatnonzero(present(self.probabilities(round_number, history)))

    def probabilities(self, round_number: int, history: History) -> FloatArray | None:
        order = np.argsort(-np.asarray(getattr(history, self.by)), kind="stable")
        return np.isin(np.arange(history.num_clients), order[: self.size]).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Boastful(DpFedAvg):
    """Promises the noise of dp_fedavg, and adds none."""

    reads: ClassVar[tuple[str, ...]] = ()

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        return DpFedAvg(clip=self.clip, noise_multiplier=0.0, expected_cohort_size=self.expected_cohort_size).rule(
            state, rnd
        )
