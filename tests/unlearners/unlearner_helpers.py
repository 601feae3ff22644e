"""Clients with quadratic losses, whose trainings and unlearning are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from fedmem.contracts.arrays import IntArray, Params
from fedmem.contracts.client_shards import ClientShards
from fedmem.contracts.unlearner import LocalTraining, RunToForget, StoredRound

LR, STEPS = 0.1, 4


def model(*values: float) -> Params:
    """A model of one layer `w`."""
    return {"w": torch.tensor(values, dtype=torch.float32)}


def number(params: Params) -> float:
    """The first weight."""
    return float(params["w"][0])


@dataclass
class Quadratic:
    """Row j of client k is a number z_j with the loss ½ (w − z_j)²; clients do STEPS steps of gradient descent.

    `rows` are the rows of each client before the phase, `retained` those in it. The population has the number
    `population`. `trained` counts local trainings.
    """

    values: Mapping[int, float]
    rows: Mapping[int, Sequence[int]]
    retained: Mapping[int, Sequence[int]]
    initial: Params
    rounds_before: int = 3
    forgotten: Mapping[int, Sequence[int]] = field(default_factory=dict)
    leaving: tuple[int, ...] = ()
    population: float = 0.0
    absent: Mapping[int, Sequence[int]] = field(default_factory=dict)
    trained: int = 0

    def __post_init__(self) -> None:
        self.history = [self.initial]
        self.locals: list[dict[int, Params]] = [{}]
        for round_number in range(1, self.rounds_before + 1):
            cohort = [client for client in self.rows if client not in self.absent.get(round_number, ())]
            sent = {client: self._descend(self.history[-1], self.rows[client], 1.0) for client in cohort}
            self.locals.append(sent)
            self.history.append(self._mean(sent, {client: len(self.rows[client]) for client in cohort}))

    @property
    def runs(self) -> Sequence[RunToForget]:
        """The only run."""
        return [
            RunToForget(
                run=0,
                before=self.history[-1],
                initial=self.initial,
                clients=tuple(client for client in self.rows if client not in self.leaving),
                forgotten={client: np.array(rows) for client, rows in self.forgotten.items()},
            )
        ]

    def _target(self, rows: Sequence[int] | IntArray) -> torch.Tensor:
        return torch.tensor(np.mean([self.values[int(row)] for row in rows]), dtype=torch.float64)

    def _descend(self, start: Params, rows: Sequence[int], share: float) -> Params:
        w, target = start["w"].double(), self._target(rows)
        for _ in range(int(np.ceil(share * STEPS))):
            w = w - LR * (w - target)
        return {"w": w.float()}

    def _mean(self, models: Mapping[int, Params], sizes: Mapping[int, int]) -> Params:
        total = sum(sizes.values())
        parts = [sizes[client] / total * params["w"].double() for client, params in models.items()]
        return {"w": torch.stack(parts).sum(0).float()}

    def retained_rows(self, run: int, client: int) -> IntArray:
        return np.array(self.retained.get(client, ()), dtype=np.int64)

    def gradient(self, run: int, client: int, model: Params, rows: IntArray) -> tuple[float, Params]:
        offsets = [model["w"].double() - self.values[int(row)] for row in rows]
        loss = float(np.mean([0.5 * float((one**2).sum()) for one in offsets]))
        return loss, {"w": torch.stack(offsets).mean(0)}

    def population_loss(self, run: int, client: int, model: Params) -> float:
        return 0.5 * float(((model["w"].double() - self.population) ** 2).sum())

    def average(self, run: int, models: Mapping[int, Params]) -> Params:
        return self._mean(models, {client: len(self.rows[client]) for client in models})

    def weights(self, run: int, sizes: Mapping[int, int]) -> Mapping[int, float]:
        return {client: size / sum(sizes.values()) for client, size in sizes.items()}

    def stored_round(self, run: int, round_number: int) -> StoredRound:
        clients = self.locals[round_number]
        return StoredRound(
            aggregate=self.history[round_number - 1],
            clients=clients,
            sizes={client: len(self.rows[client]) for client in clients},
        )

    def train(self, round_number: int, trainings: Sequence[LocalTraining], share: float = 1.0) -> Sequence[Params]:
        self.trained += len(trainings)
        return [self._descend(each.start, self.retained[each.client], share) for each in trainings]

    def train_again(self, clients: Mapping[int, Sequence[int]]) -> Mapping[int, Params]:
        models = {}
        for run, members in clients.items():
            models[run] = self.initial
            for number in range(1, self.rounds_before + 1):
                cohort = [client for client in members if client not in self.absent.get(number, ())]
                sent = {client: self._descend(models[run], self.retained[client], 1.0) for client in cohort}
                self.trained += len(cohort)
                models[run] = self._mean(sent, {client: len(self.retained[client]) for client in cohort})
        return models

    @property
    def client_shards(self) -> ClientShards:
        return ClientShards()

    @property
    def blocks(self) -> Sequence[tuple[str, ...]]:
        return [("w",)]

    def tied_entries(self, run: int) -> Params:
        return {}

    def stream(self, purpose: str, run: int, client: int | None = None) -> np.random.Generator:
        return np.random.default_rng([run, client or 0])


def three_clients(forget: int | None = None, **changes: object) -> Quadratic:
    """Three clients with two rows each; one of them is forgotten as a whole."""
    rows = {0: (0, 1), 1: (2, 3), 2: (4, 5)}
    values = dict(enumerate((4.0, 2.0, -1.0, -3.0, 0.5, 1.5)))
    gone = {} if forget is None else {forget: rows[forget]}
    settings: dict[str, object] = {
        "values": values,
        "rows": rows,
        "retained": {client: own for client, own in rows.items() if client not in gone},
        "initial": model(1.0, -2.0),
        "forgotten": gone,
        "leaving": tuple(gone),
    }
    return Quadratic(**{**settings, **changes})  # type: ignore[arg-type]
