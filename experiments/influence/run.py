"""Which approximation of influence ranks examples as retraining does, at which level, and at what cost?

    python experiments/influence/run.py --jobs 2

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted. It
writes `results.csv`, `costs.csv`, `gates.csv` and `influence.png`; every number in README.md is a row of a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.influence.analysis import of_run, table
from experiments.influence.costs import costs
from experiments.influence.figure import FIGURE
from experiments.influence.gates import gates
from fedmem.scenario.scenario import Scenario
from fedmem.studies.experiment import cell_results, command_line, write_results

HERE = Path(__file__).resolve().parent

SEEDS = (1, 2, 3, 4, 5, 6)
"""The seeds of the tables; settings and claims were chosen on seed 0."""

MODELS = {
    "logistic": ["model={kind: logistic}"],
    "mlp": [],
    "mlp, EK-FAC": ["signals=[{kind: influence_function, solver: ekfac, every: 6, targets: 40}]"],
}
"""The settings of each network and solver, beside `scenario.yaml`."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=SEEDS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    cells = [(model, seed) for seed in arguments.seeds for model in arguments.models]
    values = pd.concat(cell_results(cell, cells, arguments), ignore_index=True)
    tested = gates(values)
    paid = pd.concat([costs(scenario(name, 0, arguments.set)).assign(model=name) for name in arguments.models])
    tables = {"results": table(values), "costs": paid, "gates": tested}
    write_results(arguments.results, tables, [FIGURE], digits=4)
    print(tested.to_string(index=False))


def scenario(model: str, seed: int, settings: Sequence[str] = ()) -> Scenario:
    """The scenario of one network and seed."""
    return fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *MODELS[model], *settings])


def cell(model: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one network and seed."""
    values = of_run(fedmem.run(scenario(model, seed, settings), out=out), seed).assign(model=model)
    print(f"{model}, seed {seed}: done", flush=True)
    return values


if __name__ == "__main__":
    main()
