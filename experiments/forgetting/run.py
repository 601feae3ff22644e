"""How does an example fade from the aggregate while its owning client stays away, and when was it learnt?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.forgetting.analysis import gates, of_run, table
from experiments.forgetting.figure import FIGURE
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
SCENARIOS = {"digits": "scenario.yaml", "texts": "texts.yaml"}
ARMS = (("digits", "per_run"), ("digits", "shared"), ("texts", "per_run"))
"""Data, and whether runs share their batches."""


def scenarios(data: str, batches: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """One federation."""
    return [fedmem.load_scenario(HERE / SCENARIOS[data], [f"seed={seed}", f"batches={batches}", *settings])]


def cell(data: str, batches: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of one federation."""
    (scenario,) = scenarios(data, batches, seed, settings)
    return of_run(fedmem.read(fedmem.run(scenario, out=out))).assign(batches=batches, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(data, batches, seed) for seed in seeds for data, batches in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
