"""Clients that fail in every way there is, at a chosen place, and a strategy that tells them who they are."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedmem.clients.sgd import Sgd
from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client import ClientState, Outcome
from fedmem.strategies._rule import Arrays, Round, RuleStrategy, share, weighted_mean


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """Federated averaging that tells every client its number."""

    def make(self, cohort_size: int) -> Any:
        return RuleStrategy(self)

    def state(self, before: Arrays, num_clients: int) -> Arrays:
        return {}

    def payload(self, state: Arrays, clients: torch.Tensor) -> Arrays:
        return {"number": clients.double()}

    def rule(self, state: Arrays, rnd: Round) -> tuple[Arrays, Arrays]:
        return weighted_mean(rnd.sent, share(rnd.weights, rnd.present)), state


@dataclass(frozen=True, kw_only=True)
class Failing:
    """Descent that fails in these rounds at these clients, where the sum of the model it is given exceeds `above`.

    It remembers how many turns it has had, and reports it. `marker` is a file: where it exists, nothing fails, and the
    failure makes it, so that one happens once.
    """

    batch_size: int = 8
    how: str = "raise"
    clients: tuple[int, ...] = (1,)
    rounds: tuple[int, ...] = (2,)
    above: float = -1e9
    marker: str = ""

    @property
    def _inner(self) -> Sgd:
        return Sgd(lr=0.2, batch_size=self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        return self._inner.num_steps(num_examples)

    def batches(self, num_examples: int, rng: np.random.Generator) -> IntArray:
        return self._inner.batches(num_examples, rng)

    def init(self, before: Params, offer: Params, memory: Params) -> ClientState:
        due = int(offer["number"]) in self.clients and int(offer["round"]) in self.rounds
        due = due and float(sum(value.double().sum() for value in before.values())) > self.above
        if due and self.marker:
            due = not Path(self.marker).exists()
            Path(self.marker).touch()
        if due and self.how in ACTS:
            ACTS[self.how]()
        turns = memory.get("turns", torch.zeros((), dtype=torch.float64))
        spoilt = torch.tensor(float("nan") if due and self.how == "nan" else 0.0)
        return {**self._inner.init(before, {}, {}), "own": {"turns": turns, "spoilt": spoilt}}

    def step(self, state: ClientState, gradient: Callable[[Params], Params]) -> ClientState:
        return {**state, **self._inner.step(state, gradient)}

    def final(self, state: ClientState, before: Params) -> Outcome:
        sent = {name: value + state["own"]["spoilt"] for name, value in state["params"].items()}
        turns = state["own"]["turns"]
        return Outcome(sent=sent, kept=sent, memory={"turns": turns + 1}, report={"turns": turns})


def _raise() -> None:
    raise ValueError("this client fails on purpose")


ACTS: dict[str, Callable[[], Any]] = {
    "raise": _raise,
    "leave": lambda: sys.exit(3),
    "die": lambda: os._exit(3),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(3600),
}
