"""Do mitigations lower memorisation at equal accuracy, and that of the most vulnerable examples?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.mitigations.analysis import of_arm, table
from experiments.mitigations.claims import AT_RANDOM, BY_LOSS, REFERENCE, at_levels, differences, gates
from experiments.mitigations.figure import FIGURE
from fedmem.results.read import read, read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": ("{kind: digits}", 0.3, 3.0),
    "fashion_mnist": ("{kind: fashion_mnist, rows: 1200, test: 600}", 0.1, 2.0),
}
"""The data set, its learning rate, and that of clients that clip the gradient of each row, whose steps are shorter."""

_DP_SGD = "client={kind: dp_sgd, epochs: 1, batch_size: 16, clip: 1.0, noise_multiplier: "
_SELECTIVE = "client={kind: selective, epochs: 3, batch_size: 16, share: 0.15, by: "

ARMS: dict[str, list[str]] = {
    REFERENCE: [],
    "weight decay": ["client.weight_decay=0.01"],
    "proximal term": ["strategy={kind: fedprox, mu: 1.0}"],
    "tied units": ["tied_dropout={layers: [activation1]}"],
    "deduplication": ["client.deduplicate=exact"],
    BY_LOSS: [_SELECTIVE + "loss}"],
    AT_RANDOM: [_SELECTIVE + "random}"],
    "clipped updates": ["strategy={kind: norm_clipping, radius: 1.0}"],
    "noise of clients, small": ["defences=[{kind: clip}, {kind: noise, multiplier: 0.01}]"],
    "noise of clients, moderate": ["defences=[{kind: clip}, {kind: noise, multiplier: 0.05}]"],
    "noise of the server, small": ["strategy={kind: dp_fedavg, noise_multiplier: 0.02, expected_cohort_size: 6}"],
    "noise of the server, moderate": ["strategy={kind: dp_fedavg, noise_multiplier: 0.1, expected_cohort_size: 6}"],
    "clipped rows": [_DP_SGD + "0.0}"],
    "noise on rows, small": [_DP_SGD + "0.1}"],
    "noise on rows, moderate": [_DP_SGD + "0.5}"],
    "trimmed mean": ["strategy={kind: trimmed_mean, beta: 0.2}"],
    "median": ["strategy={kind: fedmedian}"],
}
"""The changes of each mitigation. Strengths are round numbers and not tuned."""

CLIPS_ROWS = ("clipped rows", "noise on rows, small", "noise on rows, moderate")


def scenarios(data: str, arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one data set, mitigation and seed, and that without mitigation."""
    return [_federation(data, name, seed, settings) for name in dict.fromkeys((arm, REFERENCE))]


def _federation(data: str, arm: str, seed: int, settings: Sequence[str]) -> Scenario:
    dataset, rate, rate_of_rows = DATA[data]
    lr = f"client.lr={rate_of_rows if arm in CLIPS_ROWS else rate}"
    changes = [f"seed={seed}", f"dataset={dataset}", *ARMS[arm], lr, *settings]
    return fedmem.load_scenario(HERE / "scenario.yaml", changes)


def cell(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set, mitigation and seed."""
    runs = [fedmem.run(scenario, out=out) for scenario in scenarios(data, arm, seed, settings)]
    found = of_arm(read(runs[0]), read_bank(runs[0]), read_bank(runs[-1]))
    return found.assign(data=data, arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Values after the last round, claims, and all measures at each level of accuracy with their differences."""
    values = pd.concat(results, ignore_index=True)
    return {
        "results": table(values),
        "gates": gates(values),
        "levels": at_levels(values),
        "differences": differences(values),
    }


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # levels of accuracy were chosen on seed 0
    cells=lambda seeds: [(data, arm, seed) for seed in seeds for data in DATA for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
