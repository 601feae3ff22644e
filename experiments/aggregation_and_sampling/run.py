"""Which aggregation, and which sampling, lets a federation memorise less?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import fedmem
from experiments.aggregation_and_sampling.analysis import effects, gates, shares
from experiments.aggregation_and_sampling.figure import FIGURE
from fedmem.errors import ScenarioError
from fedmem.scenario.scenario import Scenario
from fedmem.studies.compare import check_distinct_names
from fedmem.studies.grid import cross_settings, settings_of
from fedmem.studies.study import Study

FILE = Path(__file__).resolve().parent / "scenario.yaml"
FASHION = "dataset={kind: fashion_mnist, rows: 2000, test: 500}"
DATA = {
    # each client sees digits at its own slant, as people write them
    "mnist5k, authors": ["partition={kind: feature_skew, strength: 0.1, base: {kind: dirichlet, alpha: 5.0}}"],
    "Fashion, alpha 0.1": [FASHION, "partition={kind: dirichlet, alpha: 0.1}"],
    "Fashion, alpha 1": [FASHION, "partition={kind: dirichlet, alpha: 1.0}"],
}
STRATEGIES = [
    "{kind: fedavg}",
    "{kind: fedavg, weighting: uniform}",
    "{kind: fedadam, server_lr: 0.01}",
    "{kind: fedexp}",
    "{kind: fedmedian}",
    "{kind: trimmed_mean, beta: 0.2}",
    "{kind: krum, f: 2}",
    "{kind: geometric_median}",
    "{kind: norm_clipping, radius: 0.5}",
    "{kind: sign_majority, server_lr: 0.01}",
    "{kind: typicality, beta: 5.0}",
    "{kind: rotate, rest: 4}",
]
SAMPLERS = [
    "{kind: uniform, size: 8}",
    "{kind: by_size, size: 8}",
    "{kind: atypical, size: 8}",
    "{kind: min_separation, size: 8, separation: 2}",
]
VARY = {"strategy": tuple(STRATEGIES), "sampler": tuple(SAMPLERS)}
REFERENCE = {"strategy": STRATEGIES[0], "sampler": SAMPLERS[0]}
MEASURES = ["exposure", "memorisation", "auc", "test_accuracy"]
GATED = ((STRATEGIES, "norm_clipping"), (SAMPLERS, "atypical"))
"""Whose effect is known beforehand."""


class Trained(NamedTuple):
    """A cell whose banks are all there."""

    data: str
    seed: int
    out: Path
    settings: Sequence[str]


def scenarios(data: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """Every strategy with every sampler, as `fedmem.compare` would run them."""
    check_distinct_names(VARY, settings)
    cells, problems = cross_settings(FILE, settings_of(VARY), [seed], [*DATA[data], *settings])
    if problems:
        raise ScenarioError(problems)
    return [one.scenario for one in cells]


def cell(data: str, seed: int, out: Path, settings: Sequence[str]) -> Trained:
    """Train the banks of one data set and seed. `tables` compares them over seeds."""
    for scenario in scenarios(data, seed, settings):
        fedmem.run(scenario, out=out)
    return Trained(data, seed, out, settings)


def tables(results: list[Trained]) -> dict[str, pd.DataFrame]:
    """Effects, shares of variation, retention, and gates."""
    values, retentions = [], []
    for data in dict.fromkeys(trained.data for trained in results):
        comparison = fedmem.compare(
            FILE,
            vary=VARY,
            seeds=[trained.seed for trained in results if trained.data == data],
            reference=REFERENCE,
            measures=MEASURES,
            overrides=[*DATA[data], *results[0].settings],
            out=results[0].out,
            jobs=1,
        )
        values.append(comparison.values.assign(data=data))
        retentions.append(comparison.retention.assign(data=data))
    table = pd.concat(values, ignore_index=True)
    table = table[table.metric.isin(MEASURES) & table.level.isin(["local", "global"])]
    clipping, atypical = (next(v for v in a if f"kind: {k}," in v) for a, k in GATED)
    return {
        "effects": effects(table, REFERENCE),
        "shares": shares(table),
        "retention": pd.concat(retentions, ignore_index=True),
        "gates": gates(table, REFERENCE, clipping, atypical),
    }


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    cells=lambda seeds: [(data, seed) for seed in seeds for data in DATA],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    digits=5,
)
