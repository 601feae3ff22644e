"""Which aggregation, and which sampling, lets a federation memorise less?

    fedmem fetch mnist5k && fedmem fetch fashion_mnist
    python experiments/aggregation_and_sampling/run.py --jobs 2

Every strategy with every sampler, on three kinds of clients, with several seeds, a bank of 16 runs a cell. Finished
cells lie in `--out` and are not trained twice, so that the command goes on where it was interrupted, with more seeds
too. It writes `effects.csv`, `shares.csv`, `retention.csv`, `gates.csv` and `effects.png`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import fedmem
from experiments.aggregation_and_sampling.analysis import effects, gates, shares
from experiments.aggregation_and_sampling.figure import FIGURE
from fedmem.studies.experiment import command_line, write_results

HERE = Path(__file__).resolve().parent
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
REFERENCE = {"strategy": STRATEGIES[0], "sampler": SAMPLERS[0]}
MEASURES = ["exposure", "memorisation", "auc", "test_accuracy"]


def main() -> None:
    """Train what is missing, then write the tables and the figure."""
    parser = command_line(str(__doc__), HERE, seeds=5, jobs=None)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--strategies", nargs="+", metavar="KIND", default=[], help="only these, and the reference")
    parser.add_argument("--samplers", nargs="+", metavar="KIND", default=[], help="only these, and the reference")
    arguments = parser.parse_args()
    vary = {
        "strategy": choose_settings(STRATEGIES, arguments.strategies),
        "sampler": choose_settings(SAMPLERS, arguments.samplers),
    }
    values, retentions = [], []
    for data in arguments.data:
        comparison = fedmem.compare(
            HERE / "scenario.yaml",
            vary=vary,
            seeds=range(arguments.seeds),
            reference=REFERENCE,
            measures=MEASURES,
            overrides=[*DATA[data], *arguments.set],
            out=arguments.out,
            jobs=arguments.jobs,
        )
        if comparison.failures:
            raise SystemExit(f"{data}: {comparison.failure_text}")
        values.append(comparison.values.assign(data=data))
        retentions.append(comparison.retention.assign(data=data))
        print(f"{data}: done, {comparison.path}", flush=True)
    table = pd.concat(values, ignore_index=True)
    table = table[table.metric.isin(MEASURES) & table.level.isin(["local", "global"])]
    differences = effects(table, REFERENCE)
    clipping, atypical = (next(v for v in a if f"kind: {k}," in v) for a, k in GATED)
    tables = {
        "effects": differences,
        "shares": shares(table),
        "retention": pd.concat(retentions, ignore_index=True),
        "gates": gates(table, REFERENCE, clipping, atypical),
    }
    write_results(arguments.results, tables, [FIGURE], digits=5)
    print(tables["gates"].to_string(index=False))


GATED = ((STRATEGIES, "norm_clipping"), (SAMPLERS, "atypical"))
"""Whose effect is known beforehand."""


def choose_settings(settings: list[str], kinds: list[str]) -> list[str]:
    """The settings of these kinds, after the reference; all of them where none is named.

    Errors: ends the program where a kind is not among them.
    """
    kind_of = {setting: setting[1:-1].split(",")[0].removeprefix("kind: ") for setting in settings}
    if unknown := set(kinds) - set(kind_of.values()):
        kinds_text = ", ".join(dict.fromkeys(kind_of.values()))
        raise SystemExit(f"no setting of {', '.join(sorted(unknown))}; choose from: {kinds_text}")
    return [s for s in settings if s == settings[0] or not kinds or kind_of[s] in kinds]


if __name__ == "__main__":
    main()
