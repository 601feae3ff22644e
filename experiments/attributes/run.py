"""Does a model leak a sensitive column of a record beyond imputation, and of which records?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.attributes.analysis import of_run, table
from experiments.attributes.figure import FIGURE
from experiments.attributes.gates import MARITAL, RACE, SEX, WITHOUT, gates
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

ARMS = {
    MARITAL: "{kind: attribute_inference, lomia: true, column: 5}",
    WITHOUT: "{kind: attribute_inference, lomia: true, column: 5, without_columns: [7]}",
    RACE: "{kind: attribute_inference, lomia: true, column: 8}",
    SEX: "{kind: attribute_inference, lomia: true, column: 9}",
}
"""The sensitive column of each arm, and the columns that the attacker does not know."""


def scenarios(arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one arm and seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", f"signals=[{ARMS[arm]}]", *settings])]


def cell(arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one arm and seed."""
    (scenario,) = scenarios(arm, seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(arm, seed) for seed in seeds for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
