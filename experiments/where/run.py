"""Where has a network its memories: in which blocks and units, at owning clients and at the aggregate?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.where.analysis import ARMS, gates, of_run, table
from experiments.where.figure import FIGURE
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
SCENARIOS = {"images": "scenario.yaml", "texts": "texts.yaml"}


def scenarios(arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """One federation."""
    return [fedmem.load_scenario(HERE / SCENARIOS[arm], [f"seed={seed}", *settings])]


def cell(arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of one federation."""
    (scenario,) = scenarios(arm, seed, settings)
    return of_run(fedmem.read(fedmem.run(scenario, out=out)), arm).assign(arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(arm, seed) for seed in seeds for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
