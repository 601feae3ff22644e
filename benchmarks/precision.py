"""The standard error of memorisation of one example at equal processor time, by each way to lower it.

`python -m benchmarks.precision` trains `scenarios/less_noise.yaml` in each way, measures the processor time of the
training and the estimates, and writes `precision.csv` beside this file. The ratio of a way to 32 plain runs is

    (its standard error × √its seconds) / (that of plain runs × √their seconds),

as an error falls with the root of the number of runs. Below 1 the way is better than more runs. The standard error is
the root of the mean over examples of the squared error of in minus out, by probability. With shared batches, the
estimate is conditional on these batches, which is another quantity. The aim for the regression was 0.71, the precision
of twice as many runs.
"""

from __future__ import annotations

import csv
import math
import resource
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedmem.contracts.estimator import View
from fedmem.estimation.randomisation import permute_coins
from fedmem.estimation.twins import average_twins, coins_of_rows
from fedmem.estimation.views import views
from fedmem.estimators.adjusted_memorisation import AdjustedMemorisation, mean_square_error
from fedmem.execution.run import run
from fedmem.results.read import read_bank
from fedmem.scenario.loading import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "less_noise.yaml"
TABLE = Path(__file__).with_name("precision.csv")
PLAIN = "plain runs"
WAYS: dict[str, tuple[str, ...]] = {
    PLAIN: ("batches=per_run", "estimators=[{kind: memorisation}]"),
    "twice as many runs": ("batches=per_run", "runs=64", "estimators=[{kind: memorisation}]"),
    "regression on coins": ("batches=per_run",),
    "twins": ("batches=per_run", "twins=2", "estimators=[{kind: memorisation}]"),
    "shared batches (conditional)": ("estimators=[{kind: memorisation}]",),
}
HEADER = ("way", "level", "kind", "standard error", "seconds", "ratio at equal time")


def standard_errors(view: View, *, adjusted: bool) -> Iterator[tuple[str, float]]:
    """The kinds of a view, with the standard error of the memorisation of one example."""
    audit = view.audit
    if adjusted:
        ratios = {r.subject: r.value for _, r in AdjustedMemorisation().tests(view) if r.labels.get("statistic")}
    probability = average_twins(1 / (1 + np.exp(-view.margin[:, 0])), audit)
    for kind in audit.kinds:
        rows = np.flatnonzero((audit.kind == kind) & ~np.isnan(probability).any(0))
        error = math.sqrt(mean_square_error(probability[:, rows], coins_of_rows(audit)[:, rows]))
        yield kind, error * (ratios[kind] if adjusted else 1.0)


def seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(way: str, changes: tuple[str, ...], folder: Path) -> Iterator[tuple[str, str, str, float, float]]:
    """The rows of one way, without the ratio."""
    scenario = load_scenario(SCENARIO, changes)
    before = seconds()
    bank = read_bank(run(scenario, out=folder))
    taken = seconds() - before
    for view in views(bank, permute_coins(bank.audit, 0, np.random.default_rng(0))):
        if view.round is None and view.place != "others":
            adjusted = len(scenario.estimators) > 1
            for kind, error in standard_errors(view, adjusted=adjusted):
                yield way, view.level, kind, error, taken


def main() -> None:
    """Measures, prints and writes the table."""
    with TemporaryDirectory() as folder:
        run(load_scenario(SCENARIO, [*WAYS[PLAIN], "rounds=1", "runs=8"]), out=folder)  # what is loaded once
        rows = [row for way, changes in WAYS.items() for row in measure(way, changes, Path(folder))]
    plain = {row[1:3]: row[3] * math.sqrt(row[4]) for row in rows if row[0] == PLAIN}
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        for way, level, kind, error, taken in rows:
            ratio = error * math.sqrt(taken) / plain[level, kind]
            line = (way, level, kind, f"{error:.4f}", f"{taken:.1f}", f"{ratio:.2f}")
            table.writerow(line)
            print("  ".join(line))


if __name__ == "__main__":
    main()
