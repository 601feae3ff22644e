"""Which strategies memorise less than FedAvg that stops where it is as accurate?

    python experiments/aggregation_and_sampling/matched.py --jobs 2

Each strategy is compared with FedAvg after the same number of rounds. It is also compared with FedAvg that stops at the
first round at which it is as accurate on the test set. Seeds, quantities and the rule for the stopping round were
fixed before the first training. Finished banks in `--out` are not trained again. It writes `matched.csv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import fedmem
from experiments.aggregation_and_sampling.analysis import compare_matched, stopping_round
from experiments.aggregation_and_sampling.run import DATA, SAMPLERS, STRATEGIES
from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.studies.experiment import command_line, write_results

HERE = Path(__file__).resolve().parent
FEDAVG = STRATEGIES[0]
COMPARED = ("fedmedian", "krum", "norm_clipping", "trimmed_mean", "fedexp")
"""Kinds that are compared, in the order of training."""

SEEDS = range(5, 10)
"""None of them is in run.py: what was seen there does not enter here."""

CURVE = ["observe={every: 1, levels: [global]}", "references=20", "estimators=[]"]
"""FedAvg once more, to read its accuracy in each round and nothing else."""

MEASURES = ("exposure", "memorisation", "auc", "test_accuracy")


def main() -> None:
    """Train what is missing and write the table."""
    parser = command_line(str(__doc__), HERE, seeds=SEEDS, jobs=None)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--strategies", nargs="+", choices=COMPARED, default=list(COMPARED))
    arguments = parser.parse_args()
    strategies = [
        strategy for kind in arguments.strategies for strategy in STRATEGIES if strategy.startswith(f"{{kind: {kind}")
    ]
    trained = Trained(seeds=arguments.seeds, changes=arguments.set, out=arguments.out, jobs=arguments.jobs)
    table = compare_matched(pd.concat([trained.of(data, strategies) for data in arguments.data], ignore_index=True))
    write_results(arguments.results, {"matched": table}, [], digits=5)


class Trained:
    """Banks of FedAvg and of the strategies, trained where they are missing."""

    def __init__(self, *, seeds: Sequence[int], changes: Sequence[str], out: Path, jobs: int | None) -> None:
        self.seeds, self.changes, self.out, self.jobs = list(seeds), list(changes), out, jobs

    def of(self, data: str, strategies: Sequence[str]) -> pd.DataFrame:
        """The values of all arms: FedAvg to its end, each strategy, and FedAvg stopped for each strategy."""
        arms = {strategy: self.banks(data, strategy) for strategy in (FEDAVG, *strategies)}
        curve = pd.concat([accuracies(run) for run in self.banks(data, FEDAVG, CURVE).values()], axis=1).mean(axis=1)
        frames = []
        for strategy, banks in arms.items():
            frames += [values(run).assign(strategy=strategy, seed=seed, stop=0) for seed, run in banks.items()]
            if strategy == FEDAVG:
                continue
            reached = pd.concat([accuracies(run) for run in banks.values()], axis=1).mean(axis=1).iloc[-1]
            stop = stopping_round(curve, float(reached))
            if stop is not None:
                stopped = self.banks(data, FEDAVG, until(stop))
                frames += [values(run).assign(strategy=strategy, seed=s, stop=stop) for s, run in stopped.items()]
        return pd.concat(frames, ignore_index=True).assign(data=data)

    def banks(self, data: str, strategy: str, more: Sequence[str] = ()) -> dict[int, Run]:
        """Seed -> the finished bank of this strategy."""
        from fedmem.execution.many_scenarios import run_all

        overrides = [*DATA[data], f"strategy={strategy}", f"sampler={SAMPLERS[0]}", *more, *self.changes]
        scenarios = [fedmem.load_scenario(HERE / "matched.yaml", [*overrides, f"seed={seed}"]) for seed in self.seeds]
        outcomes = run_all(scenarios, out=self.out, jobs=self.jobs)
        if failed := [str(outcome.error) for outcome in outcomes if outcome.error is not None]:
            raise SystemExit(f"{data}, {strategy}: {failed[0]}")
        print(f"{data}, {strategy}{', ' * bool(more)}{' '.join(more)}: done", flush=True)
        return {seed: fedmem.read(outcome.folder) for seed, outcome in zip(self.seeds, outcomes, strict=True)}


def until(stop: int) -> list[str]:
    """The changes that end a federation after `stop` rounds, observed in its last four, or in all if it has fewer."""
    rounds = [-count for count in range(2, min(4, stop) + 1)]
    return [f"rounds={stop}", f"observe.rounds={rounds}"]


def accuracies(run: Run) -> pd.Series:
    """Test accuracy of the aggregate by observed round from 1 on, the mean over the runs of a bank."""
    rows = run.measurements
    rows = rows[
        (rows.metric == "test_accuracy") & (rows.level == "global") & (rows.scope == "round") & (rows["round"] >= 1)
    ]
    return rows.set_index("round").value.sort_index()


def values(run: Run) -> pd.DataFrame:
    """The values of a bank at its end, one row for each quantity, and the value from which it is saturated."""
    rows = run.measurements
    rows = rows[rows.metric.isin(MEASURES) & (rows.scope == "summary") & (rows.client == -1)]
    rows = rows[rows.subject.isin(["", *run.audit.kind])]
    table_rows: list[dict[str, Any]] = []
    row: Any
    for row in rows[rows.place != "others"].itertuples():
        top = zone_of_metric(row.metric, run.reference_counts.get(row.subject, ())).top
        fpr = "" if pd.isna(row.fpr) else f"fpr={row.fpr:.4g}"
        labels = (row.attack, fpr, row.statistic)
        place = {"metric": row.metric, "with": " ".join(label for label in labels if label)}
        place |= {"kind": row.subject, "level": str(row.level)}
        table_rows.append(place | {"value": row.value, "n": row.n, "saturated_from": top})
    return pd.DataFrame(table_rows)


if __name__ == "__main__":
    main()
