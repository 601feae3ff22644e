"""Executors, which train clients and evaluate models, in one process or several."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from fedmem.contracts.arrays import FloatArray, IntArray, Params
from fedmem.contracts.client import ClientAlgorithm, PrivateAlgorithm, client_declaration
from fedmem.contracts.data import Examples
from fedmem.contracts.model import trained_parameters
from fedmem.contracts.training_mode import TrainingMode, training_copy
from fedmem.contracts.validation import a_kind
from fedmem.errors import RunError
from fedmem.guards.guarding import NOT_OURS, Guard, part_name
from fedmem.guards.time_limit import Clock
from fedmem.modalities.loss import UNASKED
from fedmem.modalities.text.language_model import CausalModel, causal
from fedmem.training.client_work import Task, TrainedClient, TrainedWork, Work
from fedmem.training.defence_pipeline import DefencePipeline
from fedmem.training.frozen_prefix import Continued
from fedmem.training.per_example import Noise
from fedmem.training.precision import forward_pass
from fedmem.training.prefix_store import PrefixStore
from fedmem.training.tied_units import TiedForward, UnitTable

STACK_BYTES = 2 << 20
"""Parameters that are stacked at once unless memory is short: a few megabytes stay in the cache of a core."""


FORWARD_ROWS = 1 << 14
"""Rows times models in one forward pass unless memory is short: more are no faster, since they leave the cache."""


MODELS_AT_ONCE = 32
"""Models whose outputs are held at the same time, at most."""


Batch = Tensor | tuple[Tensor, ...]
"""The inputs of rows, and tensors beside them: stored outputs of a frozen prefix, or the units that rows keep."""


STACKS = {"cpu": STACK_BYTES, "cuda": 1 << 30, "mps": 1 << 30}
"""Parameters that are stacked at once: what stays in the cache of a core; on a GPU, what keeps it busy."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an executor trains.

    Attributes:
        defences: The defences that clients apply to their updates.
        seed: Seed of the noise of clients that clip the gradients of single examples.
        mode: How the network differs while clients train it.
        shared_draws: Whether all runs draw the same in forward passes, as where they have the same batches.
        seconds: The time that the steps of one client may take in a round.
        device: Device of torch, such as `cpu` or `cuda`. No number depends on it or on the two sizes below, but for
            rounding.
        precision: `fp32`, `tf32` or `bf16`, of the local steps alone; see `precision.py`.
        stack_bytes: Memory of one stack of clients; 0 takes what suits the device.
        forward_rows: Rows times models of the largest forward pass.
        prefix: Outputs of the frozen part of the network by row, from which forward passes start. Clients that clip
            the gradients of single examples do not use them.
    """

    defences: DefencePipeline = field(default_factory=lambda: DefencePipeline((), 0))
    seed: int = 0
    mode: TrainingMode = field(default_factory=TrainingMode)
    shared_draws: bool = False
    seconds: float = math.inf
    device: str = "cpu"
    precision: str = "fp32"
    stack_bytes: int = 0
    forward_rows: int = FORWARD_ROWS
    prefix: PrefixStore | None = None


class Executor(Protocol):
    """Trains clients and evaluates models on one store of examples.

    Models come from the server and go back to it as tensors of the CPU, wherever they are trained. They cross once a
    round in each direction, and nothing waits for the device within a local step.
    """

    @property
    def name(self) -> str:
        """The name in `speed.executor`."""

    @property
    def workers(self) -> int:
        """How many processes train."""

    @property
    def device(self) -> str:
        """Where tensors live while they are trained on."""

    @property
    def untraced_functions(self) -> Mapping[str, str]:
        """The functions that are called as they are instead of traced (`Traced`), by name, each with the reason.

        `client.step` is among them unless steps are traced. The results are the same but for rounding; it is slower.
        """

    @property
    def waiting_seconds(self) -> float:
        """Seconds that this executor has waited for others that train in the same process."""

    def train_all(self, work: Work) -> TrainedWork:
        """Train this work: the results, client by client in its order."""

    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """Train this work: results of clients whose code does not fail, and causes of the other failures by place."""

    def train(self, tasks: Sequence[Task]) -> list[TrainedClient]:
        """The same as `train_all` for single tasks of one round."""

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """(T, n, C) logits of T models on the same n inputs, computed in the model's precision, given as float64.

        Of texts (T, n, L, C), at every place.
        """

    def reader(self, params: Params) -> CausalModel:
        """A model of texts that reads one token at a time, on the CPU."""

    def models_at_once(self, rows: int) -> int:
        """Number of models whose logits on so many rows are computed at the same time, at least one."""

    @property
    def rows_at_once(self) -> int:
        """Number of rows of one forward pass of one model, at least one."""

    def close(self) -> None:
        """Release what this executor holds in addition to memory; it is not used afterwards."""


class BaseExecutor(ABC):
    """The base of executors that train by themselves; its members are abstract or final.

    Clients whose gradients are made of those of single examples draw their noise from the streams of the seed in
    `settings`.
    """

    name: str

    def __init__(
        self, model: nn.Module, client: ClientAlgorithm, store: Examples, settings: Settings | None = None
    ) -> None:
        self._settings = settings = settings or Settings()
        self._client = client
        self._defences = settings.defences
        self._private = client.per_example if isinstance(client, PrivateAlgorithm) else None
        self._seed = settings.seed
        self._seconds = settings.seconds
        self._noise = Noise(settings.seed)
        self._device = torch.device(settings.device)
        self._model = model if settings.device == "cpu" else deepcopy(model).to(self._device)
        # watching takes the network as it is, so that training with statistics or draws needs one of its own
        self._mode = settings.mode
        self._trained = training_copy(self._model, self._mode.statistics) if self._mode.differs else self._model
        self._inputs = torch.from_numpy(store.inputs).to(self._device)
        self._targets = torch.from_numpy(training_targets(client, store)).to(self._device)
        self._store = store
        self._prefix: PrefixStore | None = None
        # positions are those of one store alone
        if settings.prefix is not None and settings.prefix.store is store and self._private is None:
            self._prefix = settings.prefix.on(self._model, self._device)
            self._continued = self._prefix.continued
            differs = self._trained is not self._model
            self._trained_rest = Continued(self._trained, self._prefix.prefix) if differs else self._continued
        self._units: UnitTable | None = None
        if self._mode.tied is not None:
            assert self._prefix is None, "stored outputs lack the units that rows keep in training"
            self._units = UnitTable(self._mode.tied, store, self._device)
            self._tied = TiedForward(self._trained, self._mode.tied)
        self._precision = settings.precision
        self._stack_bytes = settings.stack_bytes or STACKS[self._device.type]
        if self._precision == "bf16" and len(store):
            self._require_bf16()
        # a row of a text is one for each place that the model answers at
        self._forward_rows = max(1, settings.forward_rows // math.prod(store.targets.shape[1:]))

    def _require_bf16(self) -> None:
        """Errors: `RunError` where the network cannot be trained under torch's autocast."""
        leaves = list(trained_parameters(self._model).values())
        try:
            with torch.enable_grad():
                with forward_pass(self._precision, self._device.type):
                    outputs = self._model(self._inputs[:2])
                torch.autograd.grad(outputs.float().sum(), leaves, allow_unused=True)
        except NOT_OURS:
            raise
        except Exception as error:
            raise RunError(
                f"speed.precision is bf16, but the network cannot be trained under torch's autocast in bfloat16 "
                f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}); use precision: fp32"
            ) from error

    @property
    def workers(self) -> int:
        """See `Executor.workers`: one process."""
        return 1

    @property
    def device(self) -> str:
        """See `Executor.device`."""
        return self._device.type

    @property
    def untraced_functions(self) -> Mapping[str, str]:
        """See `Executor.untraced_functions`."""
        return {"client.step": f"executor {self.name} calls every step as it is; only executor stacked traces steps"}

    @property
    def waiting_seconds(self) -> float:
        """See `Executor.waiting_seconds`: none."""
        return 0.0

    @abstractmethod
    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`."""

    @abstractmethod
    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""

    def reader(self, params: Params) -> CausalModel:
        """See `Executor.reader`."""
        return causal(self._model, params)

    def models_at_once(self, rows: int) -> int:
        """See `Executor.models_at_once`."""
        return max(1, min(MODELS_AT_ONCE, self._forward_rows // max(1, rows)))

    @property
    def rows_at_once(self) -> int:
        """See `Executor.rows_at_once`."""
        return self._forward_rows

    def _batches(self, inputs: NDArray[np.float32]) -> Iterator[Batch]:
        """The inputs, on the device, in pieces that one forward pass of one model takes; at least one piece."""
        for start in range(0, max(1, len(inputs)), self._forward_rows):
            piece = inputs[start : start + self._forward_rows]
            batch = torch.from_numpy(piece).to(self._device)
            places = None if self._prefix is None else self._prefix.find(piece)
            if self._prefix is None or places is None:
                yield batch
            else:
                self._prefix.fill(places)
                yield batch, *self._prefix.read(torch.from_numpy(places).to(self._device))

    def _store_outputs(self, rows: IntArray) -> None:
        """Compute the stored outputs of these rows of the store that are not there, before any step reads them."""
        if self._prefix is not None:
            self._prefix.fill(rows)

    def _with_stored(self, inputs: Tensor, rows: Tensor, clients: Tensor) -> Batch:
        """The inputs of these rows of the store, with what is stored of them, or with the units that they keep.

        `clients` are those that train on the rows; they are expanded to them.
        """
        if self._units is not None:
            return inputs, *self._units.read(rows, clients)
        return inputs if self._prefix is None else (inputs, *self._prefix.read(rows))

    def _watched_logits(self, params: Params, batch: Batch) -> Tensor:
        """The logits of a model as it is watched."""
        if isinstance(batch, tuple):
            return self._continued(params, batch[0], batch[1:])
        logits: Tensor = functional_call(self._model, params, (batch,))
        return logits

    def _trained_logits(self, params: Params, batch: Batch) -> Tensor:
        """The logits of a model in training, in float32 if its forward pass is in bf16."""
        if self._precision != "bf16":
            return self._full_logits(params, batch)
        with forward_pass(self._precision, self._device.type):
            return self._full_logits(params, batch).float()

    def _full_logits(self, params: Params, batch: Batch) -> Tensor:
        """The same in the precision of the process."""
        if isinstance(batch, tuple):
            rest = self._trained_rest if self._units is None else self._tied
            return rest(params, batch[0], batch[1:])
        logits: Tensor = functional_call(self._trained, params, (batch,))
        return logits

    @abstractmethod
    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """See `Executor.attempt_all`."""

    def _guard(self, method: str) -> Guard:
        """Around what a client does."""
        return Guard("client", self._client, method, others=self._at_work)

    @property
    def _at_work(self) -> tuple[tuple[str, object], ...]:
        """The parts that may be at work while a client is, the client last."""
        defences = (("defence", defence) for defence in self._defences.defences)
        return (("model", self._model), ("model", self._trained), *defences, ("client", self._client))

    def _clock(self, count: int = 1) -> Clock:
        """The time that so many clients have for their steps."""
        return Clock(self._seconds, part_name("client", self._client), count)

    def close(self) -> None:  # noqa: B027, most hold nothing
        """See `Executor.close`."""

    def train(self, tasks: Sequence[Task]) -> list[TrainedClient]:
        """See `Executor.train`."""
        return train_tasks(self, tasks)

    def _on_device(self, params: Params) -> Params:
        """On the device."""
        if self._device.type == "cpu":
            return params
        return {name: value.to(self._device, non_blocking=True) for name, value in params.items()}


def training_targets(client: ClientAlgorithm, store: Examples) -> IntArray:
    """The targets that a client trains on, those of the store unless it leaves some out of the loss.

    Errors: `RunError` if they are others than those of the store, or -1.
    """
    targets_of = client_declaration(client).training_targets
    if targets_of is None:
        return store.targets
    with Guard("client", client, "training_targets") as guard:
        targets: object = targets_of(store)
        like = store.targets
        if not isinstance(targets, np.ndarray) or (targets.shape, targets.dtype) != (like.shape, like.dtype):
            guard.reject(f"it returned {a_kind(targets)}, should be int64 of shape {like.shape}")
        guard.require(
            store.several_targets or targets is like, "rows with a single target have nothing to leave out of the loss"
        )
        guard.require(bool(((targets == like) | (targets == UNASKED)).all()), "a target is neither the row's nor -1")
    return targets


def train_tasks(executor: Executor, tasks: Sequence[Task]) -> list[TrainedClient]:
    """Train single tasks of one round by `Executor.train_all`."""
    if not tasks:
        return []
    done = executor.train_all(Work.of(tasks))
    return [
        TrainedClient(task=task, outcome=outcome, loss=loss)
        for task, outcome, loss in zip(tasks, done.outcomes(), done.loss.tolist(), strict=True)
    ]
