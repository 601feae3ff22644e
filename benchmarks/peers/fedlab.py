"""FedLab: its synchronous server and its serial trainer, handed the batches of the plan as a data loader."""

from __future__ import annotations

import random
from typing import Any

import torch
from fedlab.contrib.algorithm.basic_client import SGDSerialClientTrainer
from fedlab.contrib.algorithm.basic_server import SyncServerHandler
from fedlab.core.standalone import StandalonePipeline

from benchmarks import local, networks
from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan


class _Planned:
    """What FedLab calls a federated data set: a loader for each client."""

    def __init__(self, plan: Plan, server: _Server) -> None:
        self._data, self._plan, self._server = local.Data(plan), plan, server

    def get_dataloader(self, client: int, batch_size: int) -> list[local.Batch]:
        """The batches of this client in the round that the server is in."""
        place = self._plan.cohorts[0, self._server.round].tolist().index(client)
        return list(self._data.batches(0, self._server.round, place))


class _Server(SyncServerHandler):
    """Federated averaging with the cohorts of the plan."""

    cohorts: Any

    def sample_clients(self) -> list[int]:
        """The cohort of this round."""
        clients: list[int] = self.cohorts[self.round].tolist()
        return clients


class _Timed(StandalonePipeline):
    clock: Clock

    def evaluate(self) -> None:
        """Called once a round; nothing is evaluated here."""
        self.clock.round()


def train(plan: Plan, setting: Setting) -> Trained:
    """The standalone pipeline of FedLab."""
    torch.set_num_threads(setting.threads)
    random.seed(0)
    clients, cohort = plan.held.shape[1], plan.cohorts.shape[2]
    module = local.prepare(networks.build(plan.network), plan.initial)
    server = _Server(module, setting.rounds, cohort / clients)
    server.cohorts = plan.cohorts[0]
    trainer = SGDSerialClientTrainer(module, clients)
    trainer.setup_dataset(_Planned(plan, server))
    trainer.setup_optim(1, plan.batches.shape[4], plan.lr)
    pipeline = _Timed(server, trainer)
    pipeline.clock = Clock()
    pipeline.main()
    return Trained(params=local.arrays(server.model), value=pipeline.clock.seconds())


if __name__ == "__main__":
    main(train)
