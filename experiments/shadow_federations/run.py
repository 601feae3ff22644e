"""Which row was a client trained on, by whole federations, and do unknown weights, unknown batches or noise hide it?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.shadow_federations.analysis import of_run, table
from experiments.shadow_federations.claims import CLAIMS
from experiments.shadow_federations.figure import FIGURE
from fedmem.results.read import read
from fedmem.scenario.scenario import Scenario
from fedmem.studies.claims import claim_table
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

_SMALL = "client.batch_size=16"


_PRIVATE = "client={kind: dp_sgd, lr: 2.0, epochs: 2, batch_size: 1000, noise_multiplier: null}"


ARMS: dict[str, list[str]] = {
    "known": [],
    "known small batches": [_SMALL, "batches=shared"],
    "unknown small batches": [_SMALL],
    "unknown weights": ["initial_weights=per_run"],
    "unknown weights, known small batches": [_SMALL, "batches=shared", "initial_weights=per_run"],
    "epsilon 1000": [_PRIVATE, "privacy.target_epsilon=1000"],
    "epsilon 10": [_PRIVATE, "privacy.target_epsilon=10"],
    "epsilon 1": [_PRIVATE, "privacy.target_epsilon=1"],
}
"""The knowledge of the adversary, and noise. In the first, the initial weights are known and each step on all rows."""


def scenarios(arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one arm and seed."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *ARMS[arm], *settings])]


def cell(arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one arm and seed."""
    (scenario,) = scenarios(arm, seed, settings)
    return of_run(read(fedmem.run(scenario, out=out))).assign(data="digits", arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": claim_table(values, CLAIMS, ("data",))}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(arm, seed) for seed in seeds for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
