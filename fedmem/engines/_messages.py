"""The content of messages between server and clients, in addition to the model, wherever the messages travel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch.func import functional_call

from fedmem.contracts.arrays import Params
from fedmem.contracts.client import ClientAlgorithm, client_declaration
from fedmem.contracts.federation import Federation
from fedmem.errors import RunError
from fedmem.modalities.loss import UNASKED, are_densities, mean_loss
from fedmem.modalities.scores import is_right
from fedmem.observation.observed import params_of
from fedmem.strategies._rule import PAYLOAD
from fedmem.training.client_work import Task, TrainedClient

FAILED = 2
"""Flower's code of the error of a client that raised."""

ROUND_KEY = "server-round"
"""The key that every Flower strategy writes into the configuration of a message; it requests nothing."""

ARRAYS = "arrays"
"""The record of the model, in a message that leaves this process."""

KEPT, MEMORY = "kept", "memory"
"""Records of a reply in rounds that are watched: the model that a client holds, and what it remembered at its start.

The model is there where it is not what the client sent."""

WORK = "fedmem"
"""The record that tells a client of another process what its work is; no strategy sees it."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The part of a request beside the model, with which any process can do the work.

    `scenario` is the whole scenario as YAML. `remembers` is the last round of the run whose work was accepted, 0 for
    none: the memory of that round counts. `watched` asks for what is kept and remembered. `seconds` is how long the
    work may take.
    """

    scenario: str
    run: int = 0
    round: int = 0
    remembers: int = 0
    watched: bool = False
    seconds: float

    def record(self) -> ConfigRecord:
        """As Flower carries it."""
        return ConfigRecord(asdict(self))

    @staticmethod
    def of(content: RecordDict) -> Assignment:
        """The work that the content of a message tells of."""
        return Assignment(**dict(content.config_records[WORK]))  # type: ignore[arg-type]


def record_of(params: Params) -> ArrayRecord:
    """The arrays as a record that can leave this process."""
    record = ArrayRecord()
    for name, value in params.items():
        record[name] = Array(np.asarray(value.detach().numpy()))
    return record


def model_in(content: RecordDict) -> ArrayRecord:
    """The model in a strategy's message, whatever the strategy calls it."""
    return next(record for name, record in content.items() if name != PAYLOAD and isinstance(record, ArrayRecord))


def payload_of(content: RecordDict, follows: Mapping[str, str]) -> Params:
    """The payload of a message for its client; stock strategies of Flower write theirs into a config."""
    payload: Params = {}
    for name, record in content.items():
        if name == PAYLOAD and isinstance(record, ArrayRecord):
            payload |= params_of(record)
        elif name != WORK and isinstance(record, ConfigRecord):
            payload |= {
                follows[key]: torch.tensor(value, dtype=torch.float64)
                for key, value in record.items()
                if key in follows
            }
    return payload


def understood_instructions(client: ClientAlgorithm) -> Mapping[str, str]:
    """Instructions in a config that a client algorithm understands -> their names in the server payload."""
    return client_declaration(client).follows


def check_instructions(client: ClientAlgorithm, round_number: int, content: RecordDict) -> None:
    """A strategy may instruct its clients; an instruction that nobody follows would make it another strategy."""
    instructions = {key for config in content.values() if isinstance(config, ConfigRecord) for key in config} - {
        ROUND_KEY
    }
    unheard = sorted(instructions - set(understood_instructions(client)))
    if unheard:
        raise RunError(
            f"round {round_number}: the strategy instructs its clients by {unheard[0]!r}, which the client algorithm "
            f"{type(client).__name__} does not follow. It would not be the strategy that it is named after. Use a "
            "client algorithm that lists it in `follows`, or another strategy."
        )


def metrics_of(outcome: TrainedClient) -> dict[str, float]:
    """The scalars that a client says about its work; a client without rows has no loss to tell."""
    report = {name: float(value) for name, value in outcome.outcome.report.items()}
    return report | {"steps": float(len(outcome.task.batches)), "loss": outcome.loss}


def evaluate(federation: Federation, task: Task) -> RecordDict:
    """The metrics of a task's model on the task's rows."""
    store = federation.store
    with torch.no_grad():
        inputs, targets = torch.from_numpy(store.inputs[task.rows]), torch.from_numpy(store.targets[task.rows])
        logits = functional_call(federation.model, task.before, (inputs,))
        loss = float(mean_loss(logits, targets))
        correct = torch.from_numpy(is_right(logits.numpy(), targets.numpy()))
        accuracy = float(correct[targets != UNASKED].double().mean())
        if are_densities(logits, targets.ndim):
            accuracy = math.nan
    metrics = MetricRecord({"num-examples": len(task.rows), "loss": loss, "accuracy": accuracy})
    return RecordDict({"metrics": metrics})
