"""Do samples of a federated generative model copy the images of its clients, and is that seen in its log density?

    python experiments/generative/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `generative.png`; every number in README.md is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.generative.analysis import of_run, table
from experiments.generative.figure import FIGURE
from experiments.generative.gates import gates
from fedmem.results.read import read
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SEEDS = (1, 2, 3, 4, 5, 6)
"""The seeds of the tables; settings and claims were chosen on seed 0."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=SEEDS).parse_args()
    values = pd.concat(cell_results(cell, [(seed,) for seed in arguments.seeds], arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def cell(seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one seed."""
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])
    values = of_run(read(fedmem.run(scenario, out=out))).assign(seed=seed)
    print(f"seed {seed}: done", flush=True)
    return values


if __name__ == "__main__":
    main()
