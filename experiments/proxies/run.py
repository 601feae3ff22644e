"""Which cheap quantity ranks examples as memorisation does, at the owning client and in the aggregate, and when?

    python experiments/proxies/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `proxies.png`; every number in README.md is a row of one of them. The experiment
on vulnerability reads the same federations.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.proxies.analysis import of_bank, table
from experiments.proxies.banks import DATA, bank
from experiments.proxies.figure import FIGURE
from experiments.proxies.gates import gates
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=8)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    arguments = parser.parse_args()
    cells = [(data, seed) for seed in range(arguments.seeds) for data in arguments.data]
    values = pd.concat(cell_results(cell, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def cell(data: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set and seed."""
    values = of_bank(bank(data, seed, out, settings), seed).assign(data=data)
    print(f"{data}, seed {seed}: done", flush=True)
    return values


if __name__ == "__main__":
    main()
