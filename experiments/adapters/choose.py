"""At which learning rate is each arm most useful, on a development seed?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.adapters.analysis import of_bank
from experiments.adapters.arms import DEVELOPMENT, TRAINED, Arm, arms
from experiments.adapters.public import UNPRICED, known_scenarios, public_of
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import CellArguments, Study


def cells(seeds: Sequence[int]) -> list[CellArguments]:
    """Each arm at each rate that is tried for it."""
    return [(arm, rate, seed) for seed in seeds for arm in arms() if arm.trained in TRAINED for rate in arm.rates]


def scenarios(arm: Arm, rate: float, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The pretraining of the network that an arm starts from, if it is known before."""
    return known_scenarios(arm.task)


def utility(arm: Arm, rate: float, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The utility of one arm at one rate: its lowest loss on the test set, by how much it has fallen, and the round."""
    rounds = of_bank(*arm.bank(public_of(arm.task, out), out, seed=seed, rate=rate, settings=settings))
    losses = rounds[rounds.metric == "test_loss"].sort_values("round").reset_index(drop=True).value
    row = {"task": arm.task, "where": arm.where, "trained": arm.trained, "rate": rate, "test_loss": losses.min()}
    return pd.DataFrame([row | {"fall": losses[0] - losses.min(), "round": int(losses.argmin())}])


STUDY = Study(
    question=str(__doc__),
    seeds=(DEVELOPMENT,),
    cells=cells,
    work=utility,
    scenarios=scenarios,
    tables=lambda results: {"rates": pd.concat(results, ignore_index=True)},
    shown="",
    unpriced=UNPRICED,
)
