"""Is what is valuable what is memorised, and do values of clients from single runs rank clients as retraining does?

    python experiments/value/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `value.png`; every number in README.md is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.value.analysis import of_clients, of_examples, table
from experiments.value.figure import FIGURE
from experiments.value.gates import gates
from fedmem.scenario.scenario import Scenario
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SEEDS = (1, 2, 3, 4, 5, 6)
"""The seeds of the tables; settings and claims were chosen on seed 0."""

CLIENTS = "clients"

PARTS = {
    "banzhaf": ("scenario.yaml", []),
    "shapley": ("scenario.yaml", ["coins={law: owen}", "estimators=[{kind: data_value}]"]),
    CLIENTS: ("clients.yaml", []),
}
"""The scenario and settings of each part: two laws of inclusion for values of examples, and values of clients."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=SEEDS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    cells = [(part, seed) for seed in arguments.seeds for part in arguments.parts]
    values = pd.concat(cell_results(cell, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def scenario(part: str, seed: int, settings: Sequence[str] = ()) -> Scenario:
    """The scenario of one part and seed."""
    file, changes = PARTS[part]
    return fedmem.load_scenario(HERE / file, [f"seed={seed}", *changes, *settings])


def cell(part: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one part and seed."""
    folder = fedmem.run(scenario(part, seed, settings), out=out)
    values = of_clients(folder) if part == CLIENTS else of_examples(folder, seed)
    print(f"{part}, seed {seed}: done", flush=True)
    return values.assign(part=part, seed=seed)


if __name__ == "__main__":
    main()
