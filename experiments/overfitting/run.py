"""Is memorisation over-fitting: are examples memorised before the test loss rises, and without a generalisation gap?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.overfitting.analysis import of_run, table
from experiments.overfitting.claims import CLAIMS
from experiments.overfitting.figure import FIGURE
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.claims import claim_table
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": ("{kind: digits}", "client.lr=0.3"),
    "fashion_mnist": ("{kind: fashion_mnist, rows: 1500, test: 1000}", "client.lr=0.1"),
}
ARMS: dict[str, list[str]] = {"plain": [], "weight decay": ["client.weight_decay=0.01"]}
"""Local training as it is, and with a decay of weights that keeps the generalisation gap small."""


def scenarios(data: str, arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one data set, arm and seed."""
    dataset, rate = DATA[data]
    changes = [f"seed={seed}", f"dataset={dataset}", rate, *ARMS[arm], *settings]
    return [fedmem.load_scenario(HERE / "scenario.yaml", changes)]


def cell(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set, arm and seed."""
    (scenario,) = scenarios(data, arm, seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(data=data, arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": claim_table(values, CLAIMS, ("data",))}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(data, arm, seed) for seed in seeds for data in DATA for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
