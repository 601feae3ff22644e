"""Which methods remove what a federation has memorised, verified by random inclusion, and at what cost?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.unlearning.analysis import costs, of_first, of_run, stored_models, table
from experiments.unlearning.arms import FEDERATIONS, phase_of
from experiments.unlearning.client import of_client
from experiments.unlearning.figure import FIGURE
from experiments.unlearning.gates import gates
from fedmem.execution.run import folder_of
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent


def scenarios(federation: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The first training, and the phase of each method after it."""
    forgetting = FEDERATIONS[federation]
    phases = [
        fedmem.load_scenario(HERE / forgetting.file, [f"seed={seed}", phase_of(method, federation), *settings])
        for method in forgetting.methods
    ]
    first = phases[0].previous
    assert first is not None
    return [first, *phases]


def cell(federation: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of all methods after one training."""
    training, *phases = scenarios(federation, seed, settings)
    first, frames = folder_of(training, out), []
    for method, scenario in zip(FEDERATIONS[federation].methods, phases, strict=True):
        folder = fedmem.run(scenario, out=out)
        values = of_client(folder, first) if federation == "client" else of_run(fedmem.read(folder))
        frames += [part.assign(method=method) for part in (values, stored_models(scenario, first))]
    if federation != "client":
        frames.append(of_first(fedmem.read(first)).assign(method="no_op"))
    return pd.concat(frames, ignore_index=True).assign(federation=federation, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, the claims about them, and the costs."""
    values = pd.concat(results, ignore_index=True)
    cost = costs(values)
    measured = values[~values.what.isin(cost.columns)]
    return {"results": table(measured), "gates": gates(values), "costs": cost}


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(federation, seed) for federation in FEDERATIONS for seed in seeds],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
