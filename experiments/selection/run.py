"""Does leaving out risky rows, or avoiding risky clients, lower memorisation more than chance does, and who pays?

    python experiments/selection/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `selection.png`; every number in README.md is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.selection.analysis import of_run, table
from experiments.selection.figure import FIGURE
from experiments.selection.gates import gates
from fedmem.results.read import read
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SEEDS = (1, 2, 3, 4, 5, 6)
"""The seeds of the tables; settings and claims were chosen on seed 0."""

ARMS = {
    "all rows": [],
    "loss": ["client.share=0.15", "client.by=loss"],
    "el2n": ["client.share=0.15", "client.by=el2n"],
    "random": ["client.share=0.15", "client.by=random"],
    "uniform": ["sampler={kind: uniform, size: 6}"],
    "wary": ["sampler={kind: wary, size: 6}"],
}
"""Rows left out by each client, with all clients in each round; and samplers of 6 of 20 clients, with all rows."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=SEEDS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    arguments = parser.parse_args()
    cells = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms]
    values = pd.concat(cell_results(cell, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def cell(arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one arm and seed."""
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *ARMS[arm], *settings])
    values = of_run(read(fedmem.run(scenario, out=out))).assign(arm=arm, seed=seed)
    print(f"{arm}, seed {seed}: done", flush=True)
    return values


if __name__ == "__main__":
    main()
