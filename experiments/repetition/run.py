"""Does exposure rise with repetition where counterfactual memorisation falls?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.repetition.analysis import SECRETS, of_run, slopes, table
from experiments.repetition.figure import FIGURE
from fedmem.results.read import read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.studies.experiment import with_references
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent


def scenarios(seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *settings])]


def cell(seed: int, out: Path, settings: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """The final values of one federation, and among how many others each secret is ranked."""
    (scenario,) = scenarios(seed, settings)
    folder = fedmem.run(scenario, out=out)
    (count,) = {part.count for part in read_bank(folder).references if part.family in SECRETS}
    return of_run(fedmem.read(folder)).assign(seed=seed), count


def tables(results: list[tuple[pd.DataFrame, int]]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and how they change with repetition."""
    frames, counts = zip(*results, strict=True)
    values = pd.concat(frames, ignore_index=True)
    (count,) = set(counts)
    return {"results": with_references(table(values), count), "slopes": slopes(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(seed,) for seed in seeds],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    shown="slopes",
)
