"""Which methods remove what a federation has memorised, verified by random inclusion, and at what cost.

    python experiments/unlearning/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `gates.csv`, `costs.csv` and `unlearning.png`; every number in README.md is a row of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.unlearning.analysis import costs, of_first, of_run, stored_models, table
from experiments.unlearning.arms import FEDERATIONS, phase_of
from experiments.unlearning.client import of_client
from experiments.unlearning.figure import FIGURE
from experiments.unlearning.gates import gates
from fedmem.execution.run import folder_of
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    arguments = command_line(str(__doc__), HERE, seeds=5).parse_args()
    cells = [(federation, seed) for federation in FEDERATIONS for seed in range(arguments.seeds)]
    values = pd.concat(cell_results(one, cells, arguments), ignore_index=True)
    tested, cost = gates(values), costs(values)
    measured = values[~values.what.isin(cost.columns)]
    write_results(arguments.results, {"results": table(measured), "gates": tested, "costs": cost}, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def one(federation: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of all methods after one training."""
    forgetting, frames = FEDERATIONS[federation], []
    for method in forgetting.methods:
        changes = [f"seed={seed}", phase_of(method, federation), *settings]
        scenario = fedmem.load_scenario(HERE / forgetting.file, changes)
        folder = fedmem.run(scenario, out=out)
        assert scenario.previous is not None
        first = folder_of(scenario.previous, out)
        values = of_client(folder, first) if federation == "client" else of_run(fedmem.read(folder))
        frames += [part.assign(method=method) for part in (values, stored_models(scenario, first))]
    if federation != "client":
        frames.append(of_first(fedmem.read(first)).assign(method="no_op"))
    print(f"{federation}, seed {seed}: done", flush=True)
    return pd.concat(frames, ignore_index=True).assign(federation=federation, seed=seed)


if __name__ == "__main__":
    main()
