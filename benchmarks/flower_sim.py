"""Flower's own simulation on Ray: a ServerApp with FedAvg and a ClientApp, as its tutorials write them.

Flower draws the cohorts and each client shuffles its rows, so that only the amount of work is that of the plan.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# read when Flower and Ray are imported; workers inherit them
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ.setdefault("FLWR_HOME", tempfile.mkdtemp(prefix="flower-"))

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks import local, networks
from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan

CORES = 2
"""Cores that the actors share."""


def train(plan: Plan, setting: Setting) -> Trained:
    """One federation on `setting.workers` actors; seconds are those between the server's rounds."""
    found: list[Trained] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.npz"
        plan.save(path)
        server = _server(plan, setting, found)
        run_simulation(
            server_app=server,
            client_app=_client(path, setting.threads),
            num_supernodes=plan.held.shape[1],
            backend_config={
                "init_args": {"num_cpus": CORES, "include_dashboard": False, "log_to_driver": False},
                "client_resources": {"num_cpus": CORES // setting.workers, "num_gpus": 0},
            },
        )
    return found[0]


def _server(plan: Plan, setting: Setting, found: list[Trained]) -> ServerApp:
    app = ServerApp()

    @app.main()
    def serve(grid: Grid, context: Context) -> None:
        module = local.prepare(networks.build(plan.network), plan.initial)
        clock = Clock()

        def after(round_number: int, arrays: ArrayRecord) -> MetricRecord:
            if round_number:
                clock.round()
            return MetricRecord()

        share = plan.cohorts.shape[2] / plan.held.shape[1]
        result = FedAvg(fraction_train=share, fraction_evaluate=0.0).start(
            grid=grid, initial_arrays=ArrayRecord(module.state_dict()), num_rounds=setting.rounds, evaluate_fn=after
        )
        module.load_state_dict(result.arrays.to_torch_state_dict())
        found.append(Trained(params=local.arrays(module), value=clock.seconds()))

    return app


@cache
def _loaded(path: Path) -> Plan:
    """The plan, read once by each actor."""
    return Plan.load(path)


def _client(path: Path, threads: int) -> ClientApp:
    app = ClientApp()

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        torch.set_num_threads(threads)
        plan = _loaded(path)
        module = networks.build(plan.network)
        module.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        client = int(context.node_config["partition-id"])
        rows = plan.rows_of(0, client)
        local.steps(module, _shuffled(plan, rows, np.random.default_rng([_round(message), client])), plan.lr)
        content = RecordDict(
            {"arrays": ArrayRecord(module.state_dict()), "metrics": MetricRecord({"num-examples": len(rows)})}
        )
        return Message(content=content, reply_to=message)

    return app


def _round(message: Message) -> int:
    return int(str(message.content.config_records["config"]["server-round"]))


def _shuffled(plan: Plan, rows: np.ndarray, rng: np.random.Generator) -> Iterable[local.Batch]:
    order, size = rng.permutation(rows), plan.batches.shape[4]
    for start in range(0, len(order), size):
        at = order[start : start + size]
        yield torch.from_numpy(plan.inputs[at]), torch.from_numpy(plan.targets[at])


if __name__ == "__main__":
    # actors find the functions of this file in a module of their own, not in the __main__ of this process
    from benchmarks import flower_sim

    main(flower_sim.train)
