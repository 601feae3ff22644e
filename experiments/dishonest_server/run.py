"""Can a server that sends a changed model read rows of clients, and do sums, steps, clipping or noise prevent it?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.dishonest_server.analysis import of_run, table
from experiments.dishonest_server.figure import FIGURE
from experiments.dishonest_server.gates import gates
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": [],
    "fashion_mnist": ["dataset={kind: fashion_mnist, rows: 1500, test: 500}"],
}

_CLIP = "{kind: clip, norm: 0.3}"

ARMS = {
    "one step": [],
    "five small steps": ["client.steps=5", "client.batch_size=16"],
    "twenty small steps": ["client.steps=20", "client.batch_size=16"],
    "twenty whole steps": ["client.steps=20"],
    "more rows": ["clients=10"],
    "clipped": [f"defences=[{_CLIP}]"],
    "weak noise": [f"defences=[{_CLIP}, {{kind: noise, multiplier: 0.0001, norm: 0.3}}]"],
    "noise": [f"defences=[{_CLIP}, {{kind: noise, multiplier: 0.01, norm: 0.3}}]"],
}
"""Each changes one thing about the first, a client that answers after one step on all of its rows."""


def scenarios(data: str, arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one arm and seed."""
    changes = [f"seed={seed}", *DATA[data], *ARMS[arm], *settings]
    return [fedmem.load_scenario(HERE / "scenario.yaml", changes)]


def cells(seeds: Iterable[int]) -> list[tuple[str, str, int]]:
    """All arms on both data sets, seed by seed."""
    return [(data, arm, seed) for seed in seeds for data in DATA for arm in ARMS]


def cell(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one arm and seed."""
    (scenario,) = scenarios(data, arm, seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(data=data, arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=cells,
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
