"""Up to which level can examples be reconstructed, from one client's update to the sum of a whole cohort?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import fedmem
from experiments.leakage_by_level.analysis import results
from experiments.leakage_by_level.figure import FIGURE
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
DATA = {
    "mnist5k": "dataset={kind: mnist5k, rows: 632, test: 1000}",
    "fashion_mnist": "dataset={kind: fashion_mnist, rows: 632, test: 1000}",
}
MODELS = {"mlp": "model={kind: mlp, hidden: [64]}", "cnn": "model={kind: small_cnn, channels: [4, 8]}"}
BATCHES, STEPS = (1, 4, 16), (1, 5, 20)
ROWS = 12  # that a client has, nine of them audit examples or what stands for them
VICTIMS = 24  # expected of each kind in every cell, so that about 20 are there


class Cell(NamedTuple):
    """One federation."""

    data: str
    model: str
    batch: int
    steps: int

    @property
    def runs(self) -> int:
        """An even number; the two clients attacked in a run have 3 victims of each kind, if all their rows are used."""
        per_run = 3 * min(ROWS, self.batch * self.steps) / ROWS
        return 2 * math.ceil(VICTIMS / per_run / 2)

    @property
    def settings(self) -> list[str]:
        """The changes of scenario.yaml."""
        client = [f"client.batch_size={self.batch}", f"client.steps={self.steps}", f"runs={self.runs}"]
        return [DATA[self.data], MODELS[self.model], *client]


def cells(seeds: Sequence[int]) -> list[Cell]:
    """Every batch and number of steps for the MLP; for the CNN, which is dear to attack, single steps of 4."""
    every = [
        Cell(data, model, batch, steps)
        for model in MODELS
        for steps in STEPS
        for batch in BATCHES
        for data in DATA
        if model == "mlp" or (steps == 1 and batch == 4)
    ]
    return sorted(every, key=lambda cell: cell.model != "mlp")


def scenarios(data: str, model: str, batch: int, steps: int, settings: Sequence[str]) -> list[Scenario]:
    """One federation."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [*Cell(data, model, batch, steps).settings, *settings])]


def work(data: str, model: str, batch: int, steps: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The rows of one federation, trained if it has not been."""
    (scenario,) = scenarios(data, model, batch, steps, settings)
    table = results(fedmem.read(fedmem.run(scenario, out=out)), scenario.rounds)
    return pd.DataFrame([Cell(data, model, batch, steps)] * len(table)).join(table)


STUDY = Study(
    question=str(__doc__),
    seeds=(),
    cells=cells,
    work=work,
    scenarios=scenarios,
    tables=lambda frames: {"results": pd.concat(frames, ignore_index=True)},
    figures=[FIGURE],
    shown="",
)
