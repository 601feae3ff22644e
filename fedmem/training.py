"""Local training of many clients: one by one (the reference), or stacked along one axis (many runs at once).

Both executors call the same pure functions of the client algorithm on the same batches; a test holds them equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmem.components import ClientAlgorithm, ClientState, Outcome
from fedmem.seeding import stream
from fedmem.types import Examples, Federation, FloatArray, IntArray, Params

STACK_BYTES = 4 << 20
"""Parameters that are stacked at once: a few megabytes stay in the cache of a core."""

FORWARD_ROWS = 1 << 16
"""Rows times models in one stacked forward pass, which bounds the memory of its activations."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The work of one client in one round: a model, rows of the store, and the batches as positions into them."""

    run: int
    round: int
    client: int
    before: Params
    rows: IntArray
    batches: IntArray
    offer: Params = field(default_factory=dict)
    memory: Params = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a task. `loss` is the mean of the batch losses met on the way, NaN without steps."""

    task: Task
    outcome: Outcome
    loss: float


class Executor(ABC):
    """Trains tasks and evaluates models on one store of examples; abstract or final."""

    name: str

    def __init__(self, model: nn.Module, client: ClientAlgorithm, store: Examples) -> None:
        self._model = model
        self._client = client
        self._inputs = torch.from_numpy(store.inputs)
        self._targets = torch.from_numpy(store.targets)

    @abstractmethod
    def train(self, tasks: Sequence[Task]) -> list[Trained]:
        """The tasks' outcomes, in the order of the tasks."""

    @abstractmethod
    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits of T models on the same n inputs, computed in the model's precision, given as float64."""


class OneByOne(Executor):
    """Plain PyTorch, one client after the other: the reference that the other executor is tested against."""

    name = "one_by_one"

    def train(self, tasks: Sequence[Task]) -> list[Trained]:
        """See `Executor.train`."""
        return [self._train_one(task) for task in tasks]

    def _train_one(self, task: Task) -> Trained:
        state = self._client.init(task.before, task.offer, task.memory)
        losses: list[Tensor] = []
        for positions in task.batches:
            rows = torch.from_numpy(task.rows[positions[positions >= 0]])
            inputs, targets = self._inputs[rows], self._targets[rows]

            def gradient(params: Params, inputs: Tensor = inputs, targets: Tensor = targets) -> Params:
                leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
                loss = F.cross_entropy(functional_call(self._model, leaves, (inputs,)), targets)
                losses.append(loss.detach())
                return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

            state = self._client.step(state, gradient)
        outcome = self._client.final(state, task.before)
        return Trained(task=task, outcome=outcome, loss=float(torch.stack(losses).mean()) if losses else float("nan"))

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        batch = torch.from_numpy(inputs)
        with torch.no_grad():
            outputs = [functional_call(self._model, params, (batch,)) for params in models]
        return torch.stack(outputs).double().numpy()


class Stacked(Executor):
    """All clients of all runs along one leading axis, under `torch.func.vmap`.

    Tasks are sorted by their number of steps, so that the clients that still train are always a prefix of the stack
    and none is padded with idle steps; short batches are padded and masked. Clients with other offers or memories
    (those that take part for the first time have none yet) are stacked apart.
    """

    name = "stacked"

    def train(self, tasks: Sequence[Task]) -> list[Trained]:
        """See `Executor.train`."""
        if not tasks:
            return []
        order = sorted(range(len(tasks)), key=lambda i: (_extras(tasks[i]), -len(tasks[i].batches)))
        size = sum(value.numel() * value.element_size() for value in tasks[0].before.values())
        chunk = max(1, STACK_BYTES // size)
        trained: list[Trained | None] = [None] * len(tasks)
        for _, alike in groupby(order, key=lambda i: _extras(tasks[i])):
            members = list(alike)
            for start in range(0, len(members), chunk):
                part = members[start : start + chunk]
                for i, result in zip(part, self._train_chunk([tasks[i] for i in part]), strict=True):
                    trained[i] = result
        return [result for result in trained if result is not None]

    def _train_chunk(self, tasks: list[Task]) -> list[Trained]:
        steps = [len(task.batches) for task in tasks]
        rows, mask = _padded(tasks)
        before = stack([task.before for task in tasks])
        state = torch.vmap(self._client.init)(
            before, stack([task.offer for task in tasks]), stack([task.memory for task in tasks])
        )
        # `init` may hand back `before` itself, which must survive the writes below
        state = {part: {name: value.clone() for name, value in params.items()} for part, params in state.items()}
        totals = torch.zeros(len(tasks), dtype=torch.float64)
        one_step = torch.vmap(self._one_step)
        for step in range(steps[0]):
            active = sum(1 for count in steps if count > step)
            batch = rows[:active, step]
            after, losses = one_step(
                _prefix(state, active), self._inputs[batch], self._targets[batch], mask[:active, step]
            )
            _assign(state, after, active)
            totals[:active] += losses
        outcomes = torch.vmap(lambda s, b: _plain(self._client.final(s, b)))(state, before)
        means = (totals / torch.tensor(steps, dtype=torch.float64)).tolist()
        return [
            Trained(task=task, outcome=Outcome(**{name: _pick(part, i) for name, part in outcomes.items()}), loss=loss)
            for i, (task, loss) in enumerate(zip(tasks, means, strict=True))
        ]

    def _one_step(
        self, state: ClientState, inputs: Tensor, targets: Tensor, mask: Tensor
    ) -> tuple[ClientState, Tensor]:
        met: list[Tensor] = []

        def loss(params: Params) -> Tensor:
            outputs = functional_call(self._model, params, (inputs,))
            return (F.cross_entropy(outputs, targets, reduction="none") * mask).sum() / mask.sum()

        def gradient(params: Params) -> Params:
            gradients, value = torch.func.grad_and_value(loss)(params)
            met.append(value)
            return gradients  # type: ignore[no-any-return]

        after = self._client.step(state, gradient)
        return after, torch.stack(met).mean()

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        batch = torch.from_numpy(inputs)
        forward = torch.vmap(lambda params: functional_call(self._model, params, (batch,)))
        chunk = max(1, FORWARD_ROWS // max(1, len(inputs)))
        with torch.no_grad():
            parts = [forward(stack(models[start : start + chunk])) for start in range(0, len(models), chunk)]
        return torch.cat(parts).double().numpy()


def _extras(task: Task) -> tuple[list[str], list[str]]:
    """The names in the offer and the memory of a task."""
    return sorted(task.offer), sorted(task.memory)


def stack(models: Sequence[Params]) -> Params:
    """One set of parameters with a leading axis."""
    return {name: torch.stack([params[name] for params in models]) for name in models[0]}


def _padded(tasks: Sequence[Task]) -> tuple[Tensor, Tensor]:
    """Rows of the store (tasks, steps, batch) with padding at row 0, and a float mask that is 0 there."""
    steps = max(len(task.batches) for task in tasks)
    width = max(task.batches.shape[1] for task in tasks)
    rows = np.full((len(tasks), steps, width), -1, dtype=np.int64)
    for i, task in enumerate(tasks):
        chosen = rows[i, : len(task.batches), : task.batches.shape[1]]
        np.copyto(chosen, np.where(task.batches >= 0, task.rows[task.batches], -1))
    mask = torch.from_numpy((rows >= 0).astype(np.float32))
    return torch.from_numpy(np.maximum(rows, 0)), mask


def _prefix(state: ClientState, active: int) -> ClientState:
    return {part: {name: value[:active] for name, value in params.items()} for part, params in state.items()}


def _assign(state: ClientState, after: ClientState, active: int) -> None:
    """Write the prefix back; parts that no longer have idle clients are replaced instead of copied."""
    for part, params in after.items():
        for name, value in params.items():
            if active == len(state[part][name]):
                state[part][name] = value
            else:
                state[part][name][:active] = value


def _plain(outcome: Outcome) -> dict[str, Any]:
    """The outcome as the nested dictionaries that `vmap` can return."""
    return {"sent": outcome.sent, "kept": outcome.kept, "memory": outcome.memory, "report": dict(outcome.report)}


def _pick(part: Params, i: int) -> Params:
    return {name: value[i] for name, value in part.items()}


class LocalWork:
    """Turns (run, round, client, model) into a task: the client's rows in that round, batches from its own stream."""

    def __init__(self, federation: Federation, client: ClientAlgorithm, seed: int) -> None:
        self._federation = federation
        self._client = client
        self._seed = seed
        self._kept: dict[tuple[int, int, int], Task] = {}

    def used(self, run: int, client: int, round: int) -> IntArray:
        """The client's rows that are in a batch: not all, where its steps end before its first epoch does."""
        task = self.task(run, round, client, {})
        return task.rows[np.isin(np.arange(len(task.rows)), task.batches)]

    def task(self, run: int, round: int, client: int, before: Params) -> Task:
        """The work of one client; equal arguments give equal batches, whenever it is asked for."""
        rows = self._federation.rows(run, client, round)
        rng = stream(self._seed, "batches", run=run, round=round, client=client)
        return Task(
            run=run,
            round=round,
            client=client,
            before=before,
            rows=rows,
            batches=self._client.batches(len(rows), rng),
        )

    def keep(self, task: Task) -> None:
        """Remember a task as it was given, until `forget`."""
        self._kept[task.run, task.round, task.client] = task

    def kept(self, run: int, round: int, client: int) -> Task:
        """The task that this client was given in a round that is being watched."""
        return self._kept[run, round, client]

    def forget(self, round: int) -> None:
        """Let go of the tasks of a round that has been looked at."""
        self._kept = {place: task for place, task in self._kept.items() if place[1] != round}
