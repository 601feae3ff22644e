"""Exposure rises with repetition, and counterfactual memorisation falls: one figure of both.

    python experiments/repetition/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `slopes.csv` and `repetition.png`; every number in README.md is a row of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.repetition.analysis import SECRETS, of_run, slopes, table
from experiments.repetition.figure import FIGURE
from fedmem.results.read import read_bank
from fedmem.studies.experiment import cell_results, command_line, with_references, write_results

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=5).parse_args()
    results = cell_results(one, [(seed,) for seed in range(arguments.seeds)], arguments)
    frames, counts = zip(*results, strict=True)
    values = pd.concat(frames, ignore_index=True)
    (count,) = set(counts)
    summary, tested = table(values), slopes(values)
    tables = {"results": with_references(summary, count), "slopes": tested}
    write_results(arguments.results, tables, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def one(seed: int, out: Path, settings: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The final values of one federation, and among how many others each secret is ranked."""
    scenario = fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])
    folder = fedmem.run(scenario, out=out)
    (count,) = {part.count for part in read_bank(folder).references if part.family in SECRETS}
    print(f"seed {seed}: done", flush=True)
    return of_run(fedmem.read(folder)).assign(seed=seed), count


if __name__ == "__main__":
    main()
