"""Which approximation of influence ranks examples as retraining does, at which level, and at what cost?"""

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
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

MODELS = {
    "logistic": ["model={kind: logistic}"],
    "mlp": [],
    "mlp, EK-FAC": ["signals=[{kind: influence_function, solver: ekfac, every: 6, targets: 40}]"],
}
"""The settings of each network and solver, beside `scenario.yaml`."""


def scenarios(model: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one network and seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *MODELS[model], *settings])]


def cell(model: str, seed: int, out: Path, settings: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All values of one network and seed, and the costs of approximations for this network on the data of seed 0."""
    (scenario,), (priced,) = scenarios(model, seed, settings), scenarios(model, 0, settings)
    values = of_run(fedmem.run(scenario, out=out), seed)
    return values.assign(model=model), costs(priced).assign(model=model)


def tables(results: list[tuple[pd.DataFrame, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """The values over seeds, the costs, and the claims."""
    values = pd.concat([value for value, _ in results], ignore_index=True)
    # the same for all seeds
    paid = pd.concat([cost for _, cost in results]).drop_duplicates(ignore_index=True)
    return {"results": table(values), "costs": paid, "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5, 6),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(model, seed) for seed in seeds for model in MODELS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
