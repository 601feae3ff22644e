"""At which rate and parameter is each strategy with each sampler most accurate, on a development seed?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import fedmem
from experiments.matched_utility.analysis import accuracies
from experiments.matched_utility.arms import ADAPTERS, DEVELOPMENT, TASKS, arms_of, strategies_of
from fedmem.errors import RunError
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

CHEAP = ("runs=4", "estimators=[]", "observe={rounds: [16, 18, 20], levels: [global]}")
"""Accuracy alone, in the last rounds."""


def scenarios(task: str, strategy: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """All settings of the arms of a strategy; of adapters none is known before their public network is."""
    if task == ADAPTERS:
        return []
    return [
        arm.scenario(rate, value, seed, Path(), [*CHEAP, *settings])
        for arm in arms_of(task, strategy)
        for rate, value in arm.settings
    ]


def cell(task: str, strategy: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The accuracy of each setting in the last rounds; the first of the best is chosen."""
    rows = []
    for arm in arms_of(task, strategy):
        found = [_accuracy(arm.scenario(*setting, seed, out, [*CHEAP, *settings]), out) for setting in arm.settings]
        best = int(np.nanargmax(found))
        for nth, (rate, value) in enumerate(arm.settings):
            setting = {"task": task, "strategy": strategy, "sampler": arm.sampler, "rate": rate, "value": value}
            rows.append({**setting, "level": "global", "accuracy": found[nth], "chosen": nth == best})
    return pd.DataFrame(rows)


def _accuracy(scenario: Scenario, out: Path) -> float:
    """The mean over runs and the observed rounds; NaN where clients diverge, which fails the run."""
    try:
        run = read(fedmem.run(scenario, out=out))
    except RunError:
        return math.nan
    return float(accuracies(run)["value"].mean())


STUDY = Study(
    question=str(__doc__),
    seeds=(DEVELOPMENT,),
    cells=lambda seeds: [
        (task, strategy, seed) for seed in seeds for task in TASKS for strategy in strategies_of(task)
    ],
    work=cell,
    scenarios=scenarios,
    tables=lambda results: {"tries": pd.concat(results, ignore_index=True)},
    shown="",
    unpriced="the settings of adapters, which start from a network that is trained first",
)
