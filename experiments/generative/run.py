"""Do samples of a federated generative model copy the images of its clients, and is that seen in its log density?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.generative.analysis import of_run, table
from experiments.generative.figure import FIGURE
from experiments.generative.gates import gates
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent


def scenarios(seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])]


def cell(seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one seed."""
    (scenario,) = scenarios(seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5, 6),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(seed,) for seed in seeds],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
