"""Where a network has its memories: blocks and units, at owning clients and at the aggregate.

    python experiments/where/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `where.png`; every interval in README.md is a row of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.where.analysis import ARMS, gates, of_run, table
from experiments.where.figure import FIGURE
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent
SCENARIOS = {"images": "scenario.yaml", "texts": "texts.yaml"}


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=5).parse_args()
    cells = [(arm, seed) for seed in range(arguments.seeds) for arm in ARMS]
    values = pd.concat(cell_results(one, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def one(arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of one federation."""
    changes = [f"seed={seed}", *settings]
    folder = fedmem.run(fedmem.load_scenario(HERE / SCENARIOS[arm], changes), out=out)
    print(f"{arm}, seed {seed}: done", flush=True)
    return of_run(fedmem.read(folder), arm).assign(arm=arm, seed=seed)


if __name__ == "__main__":
    main()
