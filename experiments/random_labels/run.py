"""Do clients fit labels that mean nothing, does the aggregate, and what does the size of the network change?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import fedmem
from experiments.random_labels.analysis import of_folder, table
from experiments.random_labels.claims import CLAIMS
from experiments.random_labels.figure import FIGURE
from fedmem.scenario.scenario import Scenario
from fedmem.studies.claims import claim_table
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent

DATA = {
    "digits": ("{kind: digits}", "client.lr=0.3"),
    "fashion_mnist": ("{kind: fashion_mnist, rows: 1500, test: 1000}", "client.lr=0.1"),
}
EVERYWHERE = ["partition={kind: iid}", "injections=[{kind: typical, label: random_label, per_client: 6}]"]
ARMS: dict[str, tuple[str, list[str]]] = {
    "two clients, 8 units": ("labels: 0.25", ["model.hidden=[8]"]),
    "two clients, 64 units": ("labels: 0.25", ["model.hidden=[64]"]),
    "two clients, 256 units": ("labels: 0.25", ["model.hidden=[256]"]),
    "all clients, 8 units": ("labels: 1.0", ["model.hidden=[8]", *EVERYWHERE]),
    "all clients, 64 units": ("labels: 1.0", ["model.hidden=[64]", *EVERYWHERE]),
    "all clients, 256 units": ("labels: 1.0", ["model.hidden=[256]", *EVERYWHERE]),
    "all clients, images of noise": ("labels: 1.0, inputs: noise", ["model.hidden=[64]", *EVERYWHERE]),
}
"""Which clients have random labels, and the hidden units of the network. Images of noise have random labels too."""


def scenarios(data: str, arm: str, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """The federation of one data set, arm and seed."""
    base, rate = DATA[data]
    shares, changes = ARMS[arm]
    dataset = f"dataset={{kind: randomised, base: {base}, {shares}}}"
    return [fedmem.load_scenario(HERE / "scenario.yaml", [f"seed={seed}", dataset, rate, *changes, *settings])]


def cell(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """All values of one data set, arm and seed."""
    (scenario,) = scenarios(data, arm, seed, settings)
    return of_folder(fedmem.run(scenario, out=out)).assign(data=data, arm=arm, seed=seed)


def tables(results: list[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The values over seeds, and the claims about them."""
    values = pd.concat(results, ignore_index=True)
    return {"results": table(values), "gates": claim_table(values, CLAIMS, ("data",))}


STUDY = Study(
    question=str(__doc__),
    seeds=(1, 2, 3, 4, 5),  # settings and claims were chosen on seed 0
    cells=lambda seeds: [(data, arm, seed) for seed in seeds for data in DATA for arm in ARMS],
    work=cell,
    scenarios=scenarios,
    tables=tables,
    figures=[FIGURE],
)
