"""What every contender trains, down to the order of the rows: data, initial weights, cohorts, batches. numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work of R federations of N clients with cohorts of K.

    `inputs`, `targets` (n, ...): the rows. `initial`: the weights that all start from. `cohorts` (R, rounds, K):
    clients. `batches` (R, rounds, K, steps, batch): rows in the order in which they are trained on, -1 is padding.
    `held` (R, N, most): the rows of every client, -1 is padding. `network` is what `networks.build` takes.

    - A contender that can be told its batches trains exactly these, and ends with the same weights.
    - One that cannot trains each client on what it holds, in an order of its own.
    """

    network: Mapping[str, Any]
    lr: float
    inputs: NDArray[Any]
    targets: NDArray[np.int64]
    initial: Arrays
    cohorts: NDArray[np.int32]
    batches: NDArray[np.int32]
    held: NDArray[np.int32]

    @property
    def rounds(self) -> int:
        """Rounds that are planned."""
        return int(self.cohorts.shape[1])

    @property
    def runs(self) -> int:
        """R."""
        return int(self.cohorts.shape[0])

    def batches_of(self, run: int, round_number: int, place: int) -> list[NDArray[np.int32]]:
        """The rows of each batch of the client at a place of the cohort; rounds count from 0 here."""
        return [batch[batch >= 0] for batch in self.batches[run, round_number, place] if (batch >= 0).any()]

    def rows_of(self, run: int, client: int) -> NDArray[np.int32]:
        """The rows of a client, sorted."""
        own: NDArray[np.int32] = self.held[run, client]
        return own[own >= 0]

    def save(self, path: Path) -> None:
        """Write an uncompressed npz."""
        arrays = {name: getattr(self, name) for name in ("inputs", "targets", "cohorts", "batches", "held")}
        settings = json.dumps({"network": dict(self.network), "lr": self.lr})
        initial: dict[str, Any] = {f"initial/{name}": value for name, value in self.initial.items()}
        np.savez(path, settings=np.array(settings), **arrays, **initial)

    @staticmethod
    def load(path: Path) -> Plan:
        """Read what `save` has written."""
        with np.load(path, allow_pickle=False) as file:
            settings = json.loads(str(file["settings"]))
            return Plan(
                network=settings["network"],
                lr=settings["lr"],
                initial={name.removeprefix("initial/"): file[name] for name in file if name.startswith("initial/")},
                **{name: file[name] for name in ("inputs", "targets", "cohorts", "batches", "held")},
            )
