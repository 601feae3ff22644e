"""How far does privacy lower memorisation, and at what cost: at the server, at clients, and record by record?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import fedmem
from experiments.privacy_frontier.analysis import readings, results
from experiments.privacy_frontier.figure import FIGURE
from fedmem.privacy.accounting import Releases, noise_for
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
FASHION = "dataset={kind: fashion_mnist, rows: 2400, test: 1000}"
DATA = {"digits": (0.3, []), "fashion_mnist": (0.1, [FASHION])}
"""Learning rate, and what sets the data apart."""

PLACES = ("none", "central", "local", "record")
EPSILONS = (0.5, 2.0, 8.0, 32.0, math.inf)
CLIP = 1.0


class Cell(NamedTuple):
    """One bank: where noise is added, and the epsilon that it is chosen for; infinite is clipping without noise."""

    data: str
    place: str
    target: float
    seed: int

    def settings(self, shared: Scenario, smallest: int) -> list[str]:
        """The changes of scenario.yaml, if the smallest client has so many rows."""
        lr, changes = DATA[self.data]
        changes = [*changes, f"seed={self.seed}", f"client.lr={lr}"]
        if self.place == "central":
            noise = 0.0 if math.isinf(self.target) else "null"
            cohort = shared.sampler.rate * shared.clients  # type: ignore[attr-defined]
            changes.append(
                f"strategy={{kind: dp_fedavg, clip: {CLIP}, noise_multiplier: {noise}, "
                f"expected_cohort_size: {cohort:g}}}"
            )
            changes += [] if math.isinf(self.target) else [f"privacy.target_epsilon={self.target}"]
        if self.place == "local":
            z = self.noise(shared, 1.0, shared.rounds)
            noise = "" if z == 0 else f", {{kind: noise, multiplier: {z:.6g}, norm: {CLIP}}}"
            changes.append(f"defences=[{{kind: clip, norm: {CLIP}}}{noise}]")
        if self.place == "record":
            # few noisy steps over nearly all rows guarantee more than many over a part; they are longer, being clipped
            steps, batch = 2, 18
            z = self.noise(shared, min(1.0, batch / smallest), shared.rounds * steps)
            rate = 6 * lr
            client = f"kind: dp_sgd, lr: {rate:g}, steps: {steps}, batch_size: {batch}, clip: {CLIP}"
            changes.append(f"client={{{client}, noise_multiplier: {z:.6g}}}")
        return changes

    def noise(self, shared: Scenario, rate: float, count: int) -> float:
        """The noise of a client that participates in every round; with fewer rounds its epsilon is smaller."""
        if math.isinf(self.target):
            return 0.0
        record = self.place == "record"
        releases = Releases(
            noise_multiplier=0.0,
            sampling="poisson" if record and rate < 1 else "everyone",
            rate=rate,
            count=count,
            delta=shared.privacy.delta,
            unit="record" if record else "client",
            adjacency="zero_out" if record else "replace",
        )
        return noise_for(self.target, releases)


def cells(seeds: Sequence[int]) -> list[Cell]:
    """All of them, seed by seed; without privacy there is no epsilon to choose."""
    return [
        Cell(data, place, target, seed)
        for seed in seeds
        for data in DATA
        for place in PLACES
        for target in (EPSILONS if place != "none" else [math.inf])
    ]


def scenarios(data: str, place: str, target: float, seed: int, settings: Sequence[str]) -> list[Scenario]:
    """One bank, with noise for its smallest client."""
    file = HERE / "scenario.yaml"
    shared = fedmem.load_scenario(file, [*DATA[data][1], f"seed={seed}", *settings])
    changes = Cell(data, place, target, seed).settings(shared, smallest_client(shared))
    return [fedmem.load_scenario(file, [*changes, *settings, "speed.workers=1"])]


def work(data: str, place: str, target: float, seed: int, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The readings of one bank, trained if it has not been."""
    (scenario,) = scenarios(data, place, target, seed, settings)
    rows = readings(fedmem.read(fedmem.run(scenario, out=out)))
    return pd.DataFrame([Cell(data, place, target, seed)] * len(rows)).join(rows)


def smallest_client(shared: Scenario) -> int:
    """Rows of the client that has the fewest."""
    from fedmem.federation.build import build

    return int(build(shared).base_sizes.min())


STUDY = Study(
    question=str(__doc__),
    seeds=range(3),
    cells=cells,
    work=work,
    scenarios=scenarios,
    tables=lambda frames: {"results": results(pd.concat(frames, ignore_index=True))},
    figures=[FIGURE],
    shown="",
)
