"""Secrets in federated language models: which published claims hold here?

    fedmem fetch sotu
    python experiments/federated_secrets/run.py --jobs 2

After Carlini et al. (2019), Thakkar et al. (2021) and Ramaswamy et al. (2020). Secrets of four digits are in the texts
of Shakespeare's roles and of presidents. A secret has 1 to 16 copies, at one client or spread over several. Models
are trained by FedAvg, by other strategies, with other cohorts and more local work, centrally, and with differential
privacy.

Finished federations lie in `--out` and are not trained twice, so that the command goes on where it was interrupted,
with more seeds too. It writes `results.csv`, `rounds.csv`, `gates.csv` and `federated_secrets.png`; every number in
README.md is a row of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from fedmem.studies.experiment import cell_results, command_line, with_references, write_results

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
REDUCED: dict[str, Any] = {
    "data": ["shakespeare"],
    "arms": [PLAIN, CLIPPED, PRIVATE, "cohort of 4", "cohort of 16", SHUFFLED, BY_CLIENT],
    "seeds": 3,
}
"""The parts that a quarter of an hour of one core suffices for."""


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=5)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--reduced", action="store_true", help="a part of it, in a quarter of an hour of a core")
    reduced = parser.parse_known_args()[0].reduced
    parser.set_defaults(**(REDUCED if reduced else {}))
    arguments = parser.parse_args()
    # seed by seed, so that an interrupted command leaves whole seeds behind
    cells = [(data, arm, seed) for seed in range(arguments.seeds) for data in arguments.data for arm in arguments.arms]
    frames, counts = zip(*cell_results(one, cells, arguments), strict=True)
    values, curves, spiked = (pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True))
    (count,) = set(counts)
    summary, null = table(values), null_mean(count)
    tables = {
        "results": with_references(summary, count),
        "rounds": curves,
        "gates": gates(values, curves, spiked, null),
    }
    write_results(arguments.results, tables, [FIGURE], digits=5)
    print(tables["gates"].to_string(index=False))


def one(data: str, arm: str, seed: int, out: Path, settings: Sequence[str]) -> tuple[tuple[pd.DataFrame, ...], int]:
    """The last values of one federation, those of its rounds, and how its exposure spikes (FedAvg alone).

    Also among how many others each secret is ranked.
    """
    changes = [f"seed={seed}", *DATA[data], *ARMS[arm], *settings]
    folder = fedmem.run(fedmem.load_scenario(HERE / "scenario.yaml", changes), out=out)
    run, bank = fedmem.read(folder), read_bank(folder)
    (count,) = {part.count for part in bank.references if part.family in COPIES}
    values = of_run(run).assign(arm=arm)
    curves, jump = pd.DataFrame(), pd.DataFrame()
    if arm == PLAIN:
        values = pd.concat([values, of_run(run, throughout=True).assign(arm=THROUGHOUT)])
        curves = over_rounds(run, bank)
        jump = pd.DataFrame([{"value": spikes(bank, [*COPIES, *OWNERS])}])
    print(f"{data}, {arm}, seed {seed}: done", flush=True)
    frames = values, curves.assign(arm=arm), jump.assign(arm=arm)
    return tuple(frame.assign(data=data, seed=seed) for frame in frames), count


if __name__ == "__main__":
    main()
