"""How an example fades from the aggregate while its owning client stays away, and when it was learnt.

    python experiments/forgetting/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv` and `forgetting.png`; every number in README.md is a row of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.forgetting.analysis import gates, of_run, table
from experiments.forgetting.figure import FIGURE
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent
SCENARIOS = {"digits": "scenario.yaml", "texts": "texts.yaml"}


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=5).parse_args()
    arms = (("digits", "per_run"), ("digits", "shared"), ("texts", "per_run"))
    cells = [(data, batches, seed) for seed in range(arguments.seeds) for data, batches in arms]
    values = pd.concat(cell_results(one, cells, arguments), ignore_index=True)
    tested = gates(values)
    write_results(arguments.results, {"results": table(values), "gates": tested}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def one(data: str, batches: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of one federation."""
    changes = [f"seed={seed}", f"batches={batches}", *settings]
    folder = fedmem.run(fedmem.load_scenario(HERE / SCENARIOS[data], changes), out=out)
    print(f"{data}, {batches} batches, seed {seed}: done", flush=True)
    return of_run(fedmem.read(folder)).assign(batches=batches, seed=seed)


if __name__ == "__main__":
    main()
