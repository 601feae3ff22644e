"""Reconstruct examples, from one client's update up to the sum of a whole cohort.

    python experiments/leakage_by_level/run.py --jobs 2

Inverting Gradients (Geiping et al., 2020) attacks canaries, mislabelled and typical examples in three places. One is
the message of the client that trains on them. The others are sums of 2, 5 and 10 clients, as secure aggregation would
show, and the aggregate of all 12. Batches have 1, 4 and 16 examples, and clients take 1, 5 and 20 local steps. The
rounds are the first, a middle and the last one. The data are digits and images of clothes. The models are an MLP and a
small CNN.

Finished federations lie in `--out` and are not trained twice, so the command goes on where it was interrupted. It
writes `results.csv` and `leakage_by_level.png`; every number in README.md is a row of the former.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import fedmem
from experiments.leakage_by_level.analysis import results
from experiments.leakage_by_level.figure import FIGURE
from fedmem.studies.experiment import cell_results, command_line, write_results

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


def cells(data: Sequence[str], models: Sequence[str], batches: Sequence[int], steps: Sequence[int]) -> list[Cell]:
    """Every batch and number of steps for the MLP; for the CNN, which is dear to attack, single steps of 4."""
    every = [
        Cell(dataset, model, batch, count)
        for model in models
        for count in steps
        for batch in batches
        for dataset in data
        if model == "mlp" or (count == 1 and batch == 4)
    ]
    return sorted(every, key=lambda cell: cell.model != "mlp")


def main() -> None:
    """Train what is missing, then write the table and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=None)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--steps", nargs="+", type=int, choices=STEPS, default=list(STEPS))
    arguments = parser.parse_args()
    cell_list = cells(arguments.data, arguments.models, arguments.batches, arguments.steps)
    table = pd.concat(cell_results(one, [(cell,) for cell in cell_list], arguments), ignore_index=True)
    write_results(arguments.results, {"results": table}, [FIGURE], digits=4)


def one(cell: Cell, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The rows of one federation, trained if it has not been."""
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [*cell.settings, *settings])
    folder = fedmem.run(scenario, out=out)
    print(f"{', '.join(map(str, cell))}: done", flush=True)
    table = results(fedmem.read(folder), scenario.rounds)
    return pd.DataFrame([cell] * len(table)).join(table)


if __name__ == "__main__":
    main()
