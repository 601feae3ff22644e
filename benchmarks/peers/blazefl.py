"""BlazeFL: its federated averaging, serial or on its pool of threads, handed the batches of the plan."""

from __future__ import annotations

from typing import Any

import torch
from blazefl.contrib.fedavg import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgThreadPoolClientTrainer,
)

from benchmarks import local, networks
from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan


class _Planned:
    """What BlazeFL calls a partitioned data set."""

    def __init__(self, plan: Plan) -> None:
        self._data, self._plan = local.Data(plan), plan
        self.round = 0

    def get_dataloader(self, type_: Any, cid: int, batch_size: int, generator: Any = None) -> list[local.Batch]:
        """The batches of this client in the current round."""
        place = self._plan.cohorts[0, self.round].tolist().index(cid)
        return list(self._data.batches(0, self.round, place))


class _Selector:
    """Builds the network of the plan, whatever it is called."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def select_model(self, model_name: str) -> torch.nn.Module:
        """The network with its initial weights."""
        return local.prepare(networks.build(self._plan.network), self._plan.initial)


def train(plan: Plan, setting: Setting) -> Trained:
    """The loop that its examples write; the cohorts are those of the plan."""
    torch.set_num_threads(setting.threads)
    clients, cohort = plan.held.shape[1], plan.cohorts.shape[2]
    selector, data = _Selector(plan), _Planned(plan)
    server = FedAvgBaseServerHandler(
        model_selector=selector,
        model_name="network",
        dataset=data,
        global_round=setting.rounds,
        num_clients=clients,
        sample_ratio=cohort / clients,
        device="cpu",
        batch_size=plan.batches.shape[4],
        seed=0,
    )
    settings = {
        "model_selector": selector,
        "model_name": "network",
        "dataset": data,
        "device": "cpu",
        "num_clients": clients,
        "epochs": 1,
        "batch_size": plan.batches.shape[4],
        "lr": plan.lr,
        "seed": 0,
    }
    trainer: Any
    if setting.workers > 1:
        trainer = FedAvgThreadPoolClientTrainer(num_parallels=setting.workers, **settings)
    else:
        trainer = FedAvgBaseClientTrainer(**settings)
    clock = Clock()
    while not server.if_stop():
        data.round = server.round
        trainer.local_process(server.downlink_package(), plan.cohorts[0, server.round].tolist())
        for package in trainer.uplink_package():
            server.load(package)
        clock.round()
    return Trained(params=local.arrays(server.model), value=clock.seconds())


if __name__ == "__main__":
    main(train)
