"""Measure the cost of privacy and its effect on memorisation, at the server, at the client, and record by record.

    fedmem fetch fashion_mnist
    python experiments/privacy_frontier/run.py --jobs 2

The same federation is trained without privacy, and with noise in three places. `central` adds it to the server's sum
(unit client), and `local` to each update before it leaves its client (unit client). `record` adds it to each gradient
(unit record). For each place epsilon goes from 0.5 to 32, and to infinity, which is clipping alone. The data are digits
and images of clothes.

Finished federations lie in `--out` and are not trained twice, so the command goes on where it was interrupted, with
more seeds too. It writes `results.csv` and `privacy_frontier.png`; every number in README.md is a row of the former.
"""

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
from fedmem.studies.experiment import cell_results, command_line, write_results

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


def cells(data: Sequence[str], places: Sequence[str], epsilons: Sequence[float], seeds: int) -> list[Cell]:
    """All of them, seed by seed; without privacy there is no epsilon to choose."""
    return [
        Cell(dataset, place, target, seed)
        for seed in range(seeds)
        for dataset in data
        for place in places
        for target in (epsilons if place != "none" else [math.inf])
    ]


def main() -> None:
    """Train what is missing, then write the table and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--epsilons", nargs="+", type=float, default=list(EPSILONS), help="inf is clipping alone")
    arguments = parser.parse_args()
    cell_list = cells(arguments.data, arguments.places, arguments.epsilons, arguments.seeds)
    table = results(pd.concat(cell_results(one, [(cell,) for cell in cell_list], arguments), ignore_index=True))
    write_results(arguments.results, {"results": table}, [FIGURE], digits=4)


def one(cell: Cell, out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The readings of one bank, trained if it has not been."""
    file = HERE / "scenario.yaml"
    shared = fedmem.load_scenario(file, [*DATA[cell.data][1], f"seed={cell.seed}", *settings])
    changes = [*cell.settings(shared, smallest_client(shared)), *settings]
    scenario = fedmem.load_scenario(file, [*changes, "speed.workers=1"])
    rows = readings(fedmem.read(fedmem.run(scenario, out=out)))
    print(f"{', '.join(map(str, cell))}: done", flush=True)
    return pd.DataFrame([cell] * len(rows)).join(rows)


def smallest_client(shared: Scenario) -> int:
    """Rows of the client that has the fewest."""
    from fedmem.federation.build import build

    return int(build(shared).base_sizes.min())


if __name__ == "__main__":
    main()
