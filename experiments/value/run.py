"""Is what is valuable what is memorised, and do values of clients from single runs rank clients as retraining does?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.value.analysis import of_clients, of_examples, table
from experiments.value.figure import FIGURE
from experiments.value.gates import gates
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

CLIENTS = "clients"

PARTS = {
    "banzhaf": ("scenario.yaml", []),
    "shapley": ("scenario.yaml", ["coins={law: owen}", "estimators=[{kind: data_value}]"]),
    CLIENTS: ("clients.yaml", []),
}
"""The scenario and settings of each part: two laws of inclusion for values of examples, and values of clients."""


def scenarios(part: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one part and seed."""
    file, changes = PARTS[part]
    return [fedmem.load_scenario(HERE / file, [f"seed={seed}", *changes, *settings])]


def cell(part: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one part and seed."""
    (scenario,) = scenarios(part, seed, settings)
    folder = fedmem.run(scenario, out=out)
    values = of_clients(folder) if part == CLIENTS else of_examples(folder, seed)
    return values.assign(part=part, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5, 6),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(part, seed) for seed in seeds for part in PARTS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
