"""Which strategies memorise less than FedAvg that stops where it is as accurate?

Each strategy is compared with FedAvg after the same number of rounds. It is also compared with FedAvg that stops at the
first round at which it is as accurate on the test set. Seeds, quantities and the rule for the stopping round were
fixed before the first training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import fedmem
from experiments.aggregation_and_sampling.analysis import compare_matched, stopping_round
from experiments.aggregation_and_sampling.run import DATA, SAMPLERS, STRATEGIES
from fedmem.reporting.measures import zone_of_metric
from fedmem.results.read import Run
from fedmem.scenario.scenario import Scenario
from fedmem.studies.study import Study

HERE = Path(__file__).resolve().parent
FEDAVG = STRATEGIES[0]
COMPARED = ("fedmedian", "krum", "norm_clipping", "trimmed_mean", "fedexp")
"""Kinds that are compared, in the order of training."""

CURVE = ["observe={every: 1, levels: [global]}", "references=20", "estimators=[]"]
"""FedAvg once more, to read its accuracy in each round and nothing else."""

MEASURES = ("exposure", "memorisation", "auc", "test_accuracy")


def strategies() -> list[str]:
    """The strategies that are compared with FedAvg."""
    return [strategy for kind in COMPARED for strategy in STRATEGIES if strategy.startswith(f"{{kind: {kind}")]


def scenarios(data: str, seeds: Sequence[int], settings: Sequence[str]) -> list[Scenario]:
    """FedAvg to its end, each strategy, and the curve of FedAvg; which rounds it stops at depends on them."""
    arms = [*((strategy, ()) for strategy in (FEDAVG, *strategies())), (FEDAVG, CURVE)]
    return [scenario_of(data, strategy, more, seed, settings) for strategy, more in arms for seed in seeds]


def scenario_of(data: str, strategy: str, more: Sequence[str], seed: int, settings: Sequence[str]) -> Scenario:
    """The bank of a strategy with more changes."""
    changes = [*DATA[data], f"strategy={strategy}", f"sampler={SAMPLERS[0]}", *more, *settings, f"seed={seed}"]
    return fedmem.load_scenario(HERE / "matched.yaml", changes)


def cell(data: str, seeds: Sequence[int], out: Path, settings: Sequence[str]) -> pd.DataFrame:
    """The values of all arms: FedAvg to its end, each strategy, and FedAvg stopped for each strategy."""

    def banks(strategy: str, more: Sequence[str] = ()) -> dict[int, Run]:
        """Seed -> the finished bank of this strategy."""
        found = {seed: scenario_of(data, strategy, more, seed, settings) for seed in seeds}
        return {seed: fedmem.read(fedmem.run(scenario, out=out)) for seed, scenario in found.items()}

    arms = {strategy: banks(strategy) for strategy in (FEDAVG, *strategies())}
    curve = mean_accuracies(banks(FEDAVG, CURVE))
    frames = []
    for strategy, trained in arms.items():
        frames += [values(run).assign(strategy=strategy, seed=seed, stop=0) for seed, run in trained.items()]
        if strategy == FEDAVG:
            continue
        stop = stopping_round(curve, float(mean_accuracies(trained).iloc[-1]))
        if stop is not None:
            stopped = banks(FEDAVG, until(stop))
            frames += [values(run).assign(strategy=strategy, seed=s, stop=stop) for s, run in stopped.items()]
    return pd.concat(frames, ignore_index=True).assign(data=data)


def until(stop: int) -> list[str]:
    """The changes that end a federation after `stop` rounds, observed in its last four, or in all if it has fewer."""
    rounds = [-count for count in range(2, min(4, stop) + 1)]
    return [f"rounds={stop}", f"observe.rounds={rounds}"]


def mean_accuracies(banks: Mapping[int, Run]) -> pd.Series:
    """Test accuracy of the aggregate by observed round from 1 on, the mean over the runs of a bank and over seeds."""
    frames = []
    for run in banks.values():
        rows = run.measurements
        rows = rows[
            (rows.metric == "test_accuracy") & (rows.level == "global") & (rows.scope == "round") & (rows["round"] >= 1)
        ]
        frames.append(rows.set_index("round").value.sort_index())
    return pd.concat(frames, axis=1).mean(axis=1)


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


STUDY = Study(
    question=str(__doc__).splitlines()[0],
    seeds=range(5, 10),  # none of them is in run.py: what was seen there does not enter here
    cells=lambda seeds: [(data, tuple(seeds)) for data in DATA],
    work=cell,
    scenarios=scenarios,
    tables=lambda frames: {"matched": compare_matched(pd.concat(frames, ignore_index=True))},
    digits=5,
    shown="",
    unpriced="FedAvg that stops where it is as accurate as each strategy, which follows from the accuracies",
)
