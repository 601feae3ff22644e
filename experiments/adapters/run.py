"""Do adapters of low rank memorise less than full fine-tuning at equal utility, in a federation and centrally?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.adapters.analysis import at_levels, of_bank, table
from experiments.adapters.arms import CHOSEN, LEVELS, Arm, arms
from experiments.adapters.figure import FIGURE
from experiments.adapters.gates import gates
from experiments.adapters.public import UNPRICED, known_scenarios, public_of
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study


def scenarios(arm: Arm, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The pretraining of the network that an arm starts from, if it is known before."""
    return known_scenarios(arm.task)


def cell(arm: Arm, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of one arm and seed, at each level of utility and in the last round."""
    rate = CHOSEN[arm.task][arm.where][arm.trained]
    run, bank = arm.bank(public_of(arm.task, out), out, seed=seed, rate=rate, settings=settings)
    read = at_levels(of_bank(run, bank), LEVELS[arm.task])
    return read.assign(task=arm.task, where=arm.where, trained=arm.trained, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": gates(values)}


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(arm, seed) for seed in seeds for arm in arms()],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    unpriced=UNPRICED,
)
