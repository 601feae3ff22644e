"""Which strategies and samplers lower memorisation at equal accuracy, if all are tuned with the same budget?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.matched_utility.analysis import arms, gates, of_run
from experiments.matched_utility.arms import ADAPTERS, TASKS, arms_of, strategies_of
from experiments.matched_utility.figure import FIGURE
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study


def scenarios(task: str, strategy: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The arms of a strategy at their chosen settings; of adapters none is known before their public network is."""
    if task == ADAPTERS:
        return []
    return [arm.scenario(*arm.best(), seed, Path(), settings) for arm in arms_of(task, strategy)]


def cell(task: str, strategy: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of a strategy on one task and seed, with each sampler."""
    frames = []
    for arm in arms_of(task, strategy):
        run = read(fedmem.run(arm.scenario(*arm.best(), seed, out, settings), out=out))
        frames.append(of_run(run).assign(task=task, strategy=strategy, sampler=arm.sampler, seed=seed))
    return pd.concat(frames, ignore_index=True)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Every arm at equal accuracy, and the claims."""
    values = pd.concat(results, ignore_index=True)
    return {"results": arms(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),
    cells=lambda seeds: [
        (task, strategy, seed) for task in TASKS for seed in seeds for strategy in strategies_of(task)
    ],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    unpriced="adapters, which start from a network that is trained first",
)
