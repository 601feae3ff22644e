"""pfl-research: its simulated backend and its federated averaging, on user data sets in the order of the plan."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FedAvg
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel
from torch.nn import functional as F

from benchmarks import local, networks
from benchmarks.contender import Clock, Setting, Trained, main
from benchmarks.plan import Plan


class _Rounds(TrainingProcessCallback):
    """Looks at the clock after every round."""

    def __init__(self) -> None:
        self.clock = Clock()

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        """Go on, with nothing to report."""
        self.clock.round()
        return False, Metrics()


def train(plan: Plan, setting: Setting) -> Trained:
    """Federated averaging without any evaluation."""
    torch.set_num_threads(setting.threads)
    module: Any = local.prepare(networks.build(plan.network), plan.initial)
    module.loss = lambda inputs, targets: F.cross_entropy(module(inputs), targets)
    module.metrics = lambda inputs, targets: {}
    model = PyTorchModel(module, torch.optim.SGD, torch.optim.SGD(module.parameters(), lr=1.0))
    backend = SimulatedBackend(_users(plan), None, postprocessors=[WeightByDatapoints()])
    rounds = _Rounds()
    FedAvg().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=setting.rounds,
            # round 0 is always evaluated, which falls into the rounds that do not count
            evaluation_frequency=10**9,
            train_cohort_size=plan.cohorts.shape[2],
            val_cohort_size=None,
        ),
        backend=backend,
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=plan.lr, local_batch_size=plan.batches.shape[4]
        ),
        callbacks=[rounds],
        send_metrics_to_platform=False,
    )
    return Trained(params=local.arrays(module), value=rounds.clock.seconds())


def _users(plan: Plan) -> Any:
    """Users come in the order of the plan, with their rows in the order of their batches."""
    inputs, targets = torch.from_numpy(plan.inputs), torch.from_numpy(plan.targets)
    places = ((round_number, place) for round_number in range(plan.rounds) for place in range(plan.cohorts.shape[2]))

    def user(place: tuple[int, int]) -> Any:
        rows = torch.from_numpy(np.concatenate(plan.batches_of(0, *place)))
        return Dataset([inputs[rows], targets[rows]], user_id=str(plan.cohorts[0][place]))

    return FederatedDataset(user, lambda: next(places))


if __name__ == "__main__":
    main(train)
