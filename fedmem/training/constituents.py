"""Sharded training (SISA): a network of constituents, of which each client trains that of its shard alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.model import frozen_tensors
from fedmem.training.client_work import Task, TrainedClient, TrainedWork, Work
from fedmem.training.executor import Executor, Settings, train_tasks
from fedmem.training.one_by_one import OneByOne

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedmem.contracts.arrays import FloatArray, IntArray, Params
    from fedmem.contracts.client import ClientAlgorithm
    from fedmem.contracts.data import Examples
    from fedmem.modalities.text.language_model import CausalModel

MakeExecutor = Callable[[nn.Module, Settings], Executor]
"""A network and settings -> its executor."""


class MeanOfConstituents(nn.Module):
    """The log of the mean probabilities of its constituents, log (1/S) Σ_s softmax(f_s(x)), over the last axis.

    So texts have a mean at every place. All constituents share the frozen tensors of the first.

    >>> first, second = nn.Linear(1, 2, bias=False), nn.Linear(1, 2, bias=False)
    >>> with torch.no_grad():
    ...     _ = first.weight.copy_(torch.tensor([[0.0], [0.0]])), second.weight.copy_(torch.tensor([[0.0], [1.0]]))
    >>> MeanOfConstituents([first, second])(torch.ones(1, 1)).exp().sum().item()
    1.0
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.constituents = nn.ModuleList(networks)
        shared = frozen_tensors(networks[0])
        with torch.no_grad():
            for network in networks[1:]:
                for name, value in frozen_tensors(network).items():
                    value.copy_(shared[name])

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (n, ...) to the logarithms of probabilities (n, ..., C)."""
        logarithms = torch.stack([network(inputs).log_softmax(-1) for network in self.constituents])
        return logarithms.logsumexp(0) - float(np.log(len(self.constituents)))


class ConstituentExecutor:
    """Trains each client in the constituent of its shard, as `trainer` trains a plain network.

    The client is given this constituent alone, so that momentum, weight decay and defences act on nothing else. In its
    update, all others are as they came. `watcher` evaluates the whole.
    """

    def __init__(self, shards: ClientShards, trainer: Executor, watcher: Executor) -> None:
        self._shards = shards
        self._trainer = trainer
        self._watcher = watcher

    @property
    def name(self) -> str:
        """See `Executor.name`."""
        return self._trainer.name

    @property
    def workers(self) -> int:
        """See `Executor.workers`."""
        return self._trainer.workers

    @property
    def device(self) -> str:
        """See `Executor.device`."""
        return self._trainer.device

    @property
    def untraced_functions(self) -> Mapping[str, str]:
        """See `Executor.untraced_functions`."""
        return {**self._watcher.untraced_functions, **self._trainer.untraced_functions}

    @property
    def waiting_seconds(self) -> float:
        """See `Executor.waiting_seconds`."""
        return self._trainer.waiting_seconds + self._watcher.waiting_seconds

    def train_all(self, work: Work) -> TrainedWork:
        """See `Executor.train_all`."""
        return self._join(work, self._trainer.train_all(self._split(work)))

    def attempt_all(self, work: Work) -> tuple[TrainedWork | None, dict[int, str]]:
        """See `Executor.attempt_all`."""
        done, failures = self._trainer.attempt_all(self._split(work))
        successes = [i for i in range(len(work)) if i not in failures]
        return (None if done is None else self._join(work.take(successes) if failures else work, done)), failures

    def train(self, tasks: Sequence[Task]) -> list[TrainedClient]:
        """See `Executor.train`."""
        return train_tasks(self, tasks)

    def logits(self, models: Sequence[Params], inputs: NDArray[np.float32]) -> FloatArray:
        """See `Executor.logits`."""
        return self._watcher.logits(models, inputs)

    def reader(self, params: Params) -> CausalModel:
        """See `Executor.reader`."""
        return self._watcher.reader(params)

    def models_at_once(self, rows: int) -> int:
        """See `Executor.models_at_once`."""
        return self._watcher.models_at_once(rows)

    @property
    def rows_at_once(self) -> int:
        """See `Executor.rows_at_once`."""
        return self._watcher.rows_at_once

    def close(self) -> None:
        """See `Executor.close`."""
        self._trainer.close()
        self._watcher.close()

    def _shards_of(self, work: Work) -> IntArray:
        """(T,) the shard of each client."""
        return np.array([self._shards.of(client) for client in work.client.tolist()], dtype=np.int64)

    def _split(self, work: Work) -> Work:
        """The same work, in which each client starts from its constituent."""
        pairs, places = np.unique(np.stack([work.model, self._shards_of(work)]), axis=1, return_inverse=True)
        constituents = [self._shards.constituent(shard, work.models) for shard in range(self._shards.count)]
        models = {
            name: torch.stack([constituents[shard][name][model] for model, shard in pairs.T.tolist()])
            for name in constituents[0]
        }
        return replace(work, models=models, model=places.reshape(-1))

    def _join(self, work: Work, done: TrainedWork) -> TrainedWork:
        """The results of this work with whole models: all other constituents as they were sent to the client."""
        model, shard_of_client = torch.from_numpy(work.model), self._shards_of(work)

        def join(part: Params) -> Params:
            whole = {name: value.index_select(0, model) for name, value in work.models.items()}
            for shard in np.unique(shard_of_client).tolist():
                places = torch.from_numpy(np.flatnonzero(shard_of_client == shard))
                for name, value in part.items():
                    whole[self._shards.entry(shard, name)][places] = value[places]
            return whole

        sent = join(done.sent)
        return replace(done, work=work, sent=sent, kept=sent if done.kept is done.sent else join(done.kept))


def executor_by_shard(
    network: nn.Module, settings: Settings, make: MakeExecutor, watch: MakeExecutor | None = None
) -> Executor:
    """The executor of a network; where clients are in shards, it trains single constituents and evaluates the whole.

    Args:
        network: The network.
        settings: The settings; the shards are in its `mode`.
        make: Makes the executor, or that of single constituents.
        watch: Makes the one that evaluates the whole, if it is another.
    """
    shards = settings.mode.client_shards
    if shards is None:
        return make(network, settings)
    assert isinstance(network, MeanOfConstituents)
    plain = replace(settings, mode=replace(settings.mode, client_shards=None), prefix=None)
    return ConstituentExecutor(shards, make(network.constituents[0], plain), (watch or make)(network, plain))


def reference_executor(network: nn.Module, client: ClientAlgorithm, store: Examples, settings: Settings) -> Executor:
    """The executor that trains one client after another, also where clients are in shards."""
    return executor_by_shard(network, settings, lambda part, of_part: OneByOne(part, client, store, of_part))
