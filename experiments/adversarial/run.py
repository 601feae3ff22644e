"""Are adversarial and poisoned examples memorised more than ordinary rows, and do they harm answers elsewhere?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.adversarial.analysis import of_run, table
from experiments.adversarial.claims import CLAIMS
from experiments.adversarial.figure import FIGURE
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.claims import claim_table
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": ("{kind: digits}", "client.lr=0.3"),
    "fashion_mnist": ("{kind: fashion_mnist, rows: 1500, test: 1000}", "client.lr=0.1"),
}


def scenarios(data: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one data set and seed."""
    dataset, rate = DATA[data]
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", f"dataset={dataset}", rate, *settings])]


def cell(data: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set and seed."""
    (scenario,) = scenarios(data, seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(data=data, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": claim_table(values, CLAIMS, ("data",))}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(data, seed) for seed in seeds for data in DATA],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
