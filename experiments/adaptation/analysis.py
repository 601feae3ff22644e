"""From finished runs to values of one seed: accuracy, memorisation, membership and reconstruction along training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import newcombe
from fedmem.results.read import Run
from fedmem.studies.experiment import over_seeds, table_over_seeds
from fedmem.studies.matched import Curve, seeds_by_rounds

KEYS = ["part", "arm", "what", "level", "round"]
COLUMNS = ["what", "level", "round", "value"]

ACCURACY, MEMORISATION, AUC = "test accuracy", "memorisation", "AUC of LiRA"
PSNR, READ, READ_OUT = "PSNR: in − out", "images identified: in − out", "images identified: out"

LEVELS = ("local", "global")

STARTS = {"leakage": "grey", "leakage_2": "public images", "leakage_3": "public components"}
"""Source of a row of `classes.yaml` -> where class inversion begins, and what its images are made of."""

_LEAKS = {"psnr.difference": PSNR, "identified.difference": READ}


def of_run(run: Run, part: str) -> pd.DataFrame:
    """The values of one run folder after each observed round: `what`, `level`, `round` and `value`.

    Memorisation is by the probability of the label. It and the AUC are means over the kinds of examples. The level
    `local` is the owning client or its message, and `global` the aggregate or the step of the server.
    """
    rows = run.measurements
    rows = rows[rows.scope == "round"]
    found = [_values_of(rows[(rows.metric == "test_accuracy") & (rows.level == "global")], ACCURACY)]
    if part == "memory":
        rows = rows[(rows.level == "global") | (rows.place == "owner")]
        found.append(
            _values_of(rows[(rows.metric == "memorisation") & (rows.statistic == "probability")], MEMORISATION)
        )
        found.append(_values_of(rows[(rows.metric == "auc") & (rows.attack == "lira")], AUC))
    else:
        begins = STARTS if part == "classes" else {"leakage": ""}
        for source, start in begins.items():
            found += list(_leaks(rows[rows.source == source], f", {start}" if start else ""))
    return pd.concat(found, ignore_index=True).groupby(COLUMNS[:3], sort=False)["value"].mean().reset_index()


def _leaks(rows: pd.DataFrame, suffix: str) -> Iterable[pd.DataFrame]:
    """The differences of one attack, and its control."""
    for metric, what in _LEAKS.items():
        yield _values_of(rows[rows.metric == metric], what + suffix)
    yield _values_of(rows[(rows.metric == "identified") & (rows.coin == "out")], READ_OUT + suffix)


def _values_of(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """These rows as values of one quantity."""
    return pd.DataFrame({"what": what, "level": rows.level, "round": rows["round"].astype(int), "value": rows.value})


def table(values: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student); undefined where the value of a seed is."""
    return table_over_seeds(values, KEYS)


def curve(values: pd.DataFrame, part: str, arm: str, what: str, level: str) -> Curve:
    """A quantity of an arm at one level along training, beside the test accuracy of the aggregate.

    Round 0 has no quantity, and no place in the curve. A seed that lacks a value has NaN there.
    """
    of_part = values[(values.part == part) & (values["round"] > 0)]
    seeds, rounds = (sorted(of_part[name].unique()) for name in ("seed", "round"))

    def along(name: str, place: str) -> FloatArray:
        chosen = of_part[(of_part.arm == arm) & (of_part.what == name) & (of_part.level == place)]
        return seeds_by_rounds(chosen, seeds, rounds)

    return Curve(utility=along(ACCURACY, "global"), quantity=along(what, level))


def share_interval(difference: FloatArray, out: FloatArray, runs: int) -> dict[str, float]:
    """`over_seeds` of a difference of shares, with Newcombe's interval where nothing is identified in any seed.

    Student's interval needs spread. Where all shares are 0, each run of each seed counts as one trial in and one trial
    out. Examples of one run are not independent.

    Args:
        difference: (S,) in − out.
        out: (S,) share of out examples.
        runs: Number of runs of a seed.
    """
    found = over_seeds(difference)
    if not len(difference) or np.any(difference != 0) or np.any(out != 0):
        return found
    trials = runs * len(difference)
    low, high = newcombe(0, trials, 0, trials)
    return {**found, "low": float(low), "high": float(high)}
