"""Does a model leak a sensitive column of a record beyond imputation, and of which records?

    python experiments/attributes/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `attributes.png`; every number in README.md is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.attributes.analysis import of_run, table
from experiments.attributes.figure import FIGURE
from experiments.attributes.gates import MARITAL, RACE, SEX, WITHOUT, gates
from fedmem.results.read import read
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SEEDS = (1, 2, 3, 4, 5)
"""The seeds of the tables; settings and claims were chosen on seed 0."""

ARMS = {
    MARITAL: "{kind: attribute_inference, lomia: true, column: 5}",
    WITHOUT: "{kind: attribute_inference, lomia: true, column: 5, without_columns: [7]}",
    RACE: "{kind: attribute_inference, lomia: true, column: 8}",
    SEX: "{kind: attribute_inference, lomia: true, column: 9}",
}
"""The sensitive column of each arm, and the columns that the attacker does not know."""


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
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", f"signals=[{ARMS[arm]}]", *settings])
    values = of_run(read(fedmem.run(scenario, out=out))).assign(arm=arm, seed=seed)
    print(f"{arm}, seed {seed}: done", flush=True)
    return values


if __name__ == "__main__":
    main()
