"""Secrets in federated language models: which published claims hold here?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.federated_secrets.analysis import (
    BY_CLIENT,
    CLIPPED,
    COPIES,
    OWNERS,
    PLAIN,
    PRIVATE,
    SHUFFLED,
    THROUGHOUT,
    gates,
    of_run,
    over_rounds,
    spikes,
    table,
)
from experiments.federated_secrets.figure import FIGURE
from fedmem.estimators.exposure import null_mean
from fedmem.results.read import read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.studies.experiment import with_references
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
DATA = {
    "shakespeare": [],
    "sotu": ["dataset={kind: sotu, clients: 20, length: 40, max_chars: 6000, test: 0.05}"],
}
ALL = ["sampler={kind: everyone}", "rounds=6", "observe.every=6"]
"""As many passes over the data as 15 rounds of 8 of 20 clients."""

ARMS = {
    PLAIN: ["observe.every=1"],
    "fedavgm": ["strategy={kind: fedavgm, momentum: 0.5}"],
    "fedmedian": ["strategy={kind: fedmedian}"],
    "trimmed_mean": ["strategy={kind: trimmed_mean, beta: 0.2}"],
    "krum": ["strategy={kind: krum, f: 2}"],
    CLIPPED: ["strategy={kind: norm_clipping, radius: 2.0}"],
    PRIVATE: ["strategy={kind: dp_fedavg, clip: 2.0, noise_multiplier: 0.1, expected_cohort_size: 8}"],
    "cohort of 4": ["sampler.size=4"],
    "cohort of 16": ["sampler.size=16"],
    "1 local epoch": ["client.epochs=1"],
    "4 local epochs": ["client.epochs=4"],
    SHUFFLED: ["central=shuffled", *ALL],
    BY_CLIENT: ["central=by_client", *ALL],
}


def scenarios(data: str, arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """One federation."""
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", *DATA[data], *ARMS[arm], *settings])]


def cell(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> tuple[tuple[pd.DataFrame, ...], int]:
    """The last values of one federation, those of its rounds, and how its exposure spikes (FedAvg alone).

    Also among how many others each secret is ranked.
    """
    (scenario,) = scenarios(data, arm, seed, settings)
    folder = fedmem.run(scenario, out=out)
    run, bank = fedmem.read(folder), read_bank(folder)
    (count,) = {part.count for part in bank.references if part.family in COPIES}
    values = of_run(run).assign(arm=arm)
    curves, jump = pd.DataFrame(), pd.DataFrame()
    if arm == PLAIN:
        values = pd.concat([values, of_run(run, throughout=True).assign(arm=THROUGHOUT)])
        curves = over_rounds(run, bank)
        jump = pd.DataFrame([{"value": spikes(bank, [*COPIES, *OWNERS])}])
    frames = values, curves.assign(arm=arm), jump.assign(arm=arm)
    return tuple(frame.assign(data=data, seed=seed) for frame in frames), count


def tables(results: list[tuple[tuple[pd.DataFrame, ...], int]]) -> dict[str, pd.DataFrame]:
    """The last values over seeds, those of rounds, and the claims."""
    frames, counts = zip(*results, strict=True)
    values, curves, spiked = (pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True))
    (count,) = set(counts)
    return {
        "results": with_references(table(values), count),
        "rounds": curves,
        "gates": gates(values, curves, spiked, null_mean(count)),
    }


STUDY = Study(
    question=str(__doc__),
    seeds=range(5),
    # seed by seed, so that an interrupted command leaves whole seeds behind
    cells=lambda seeds: [(data, arm, seed) for seed in seeds for data in DATA for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
    digits=5,
)
