"""From finished runs to what each arm memorises at equal accuracy, and to claims about strategies and samplers.

The quantities, the two accuracies and the claims were fixed before any seed of the tables was run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.matched_utility.arms import FEDAVG, SAMPLERS, UNIFORM, tries
from fedmem.contracts.arrays import FloatArray
from fedmem.results.read import Run
from fedmem.studies.contrasts import contrast
from fedmem.studies.experiment import holm_by_family, over_seeds, verdict_after_holm
from fedmem.studies.matched import Curve, seeds_by_rounds, values_at

ACCURACY, MEMORISATION, AUC = "test accuracy", "memorisation", "AUC of LiRA"
ORDINARY = "memorisation of ordinary rows"

QUANTITIES = (MEMORISATION, AUC, ORDINARY)
LEVELS = ("local", "global")

ATYPICAL = ("random_pattern", "mislabelled")
"""The kinds of examples whose mean is `MEMORISATION` and `AUC`."""

SHARES = (0.9, 0.97)
"""Where arms are compared: these shares of the accuracy of FedAvg with the uniform sampler on the development seed."""

PRIMARY = (MEMORISATION, 0.9)
"""The comparison that the page begins with."""


class Place(NamedTuple):
    """A reading: a quantity, a level, and a share of the accuracy."""

    what: str
    level: str
    share: float


PLACES = [Place(what, level, share) for what in QUANTITIES for share in SHARES for level in LEVELS]


def of_run(run: Run) -> pd.DataFrame:
    """The values of one run folder after each observed round: `what`, `level`, `round` and `value`.

    Memorisation is by the probability of the label. The level `local` is the owning client.
    """
    rows = run.measurements
    rows = rows[(rows.scope == "round") & ((rows.level == "global") | (rows.place == "owner"))]
    by_probability = rows[(rows.metric == "memorisation") & (rows.statistic == "probability")]
    lira = rows[(rows.metric == "auc") & (rows.attack == "lira")]
    found = [
        accuracies(run),
        _values_of(by_probability[by_probability.subject.isin(ATYPICAL)], MEMORISATION),
        _values_of(lira[lira.subject.isin(ATYPICAL)], AUC),
        _values_of(by_probability[by_probability.subject == "typical"], ORDINARY),
    ]
    return (
        pd.concat(found, ignore_index=True)
        .groupby(["what", "level", "round"], sort=False)["value"]
        .mean()
        .reset_index()
    )


def accuracies(run: Run) -> pd.DataFrame:
    """The accuracy of the aggregate on the test set after each observed round, the mean over runs, as in `of_run`."""
    rows = run.measurements
    return _values_of(
        rows[(rows.metric == "test_accuracy") & (rows.level == "global") & (rows.scope == "round")], ACCURACY
    ).sort_values("round")


def _values_of(rows: pd.DataFrame, what: str) -> pd.DataFrame:
    """These rows as values of one quantity; round 0, before any training, has none."""
    rows = rows[rows["round"] > 0]
    return pd.DataFrame({"what": what, "level": rows.level, "round": rows["round"].astype(int), "value": rows.value})


@cache
def accuracy_of(task: str, share: float) -> float:
    """The accuracy at which the arms of a task are compared, from the development seed alone."""
    rows = tries()
    rows = rows[(rows.task == task) & (rows.strategy == FEDAVG) & (rows.sampler == UNIFORM) & rows.chosen]
    return share * float(rows.accuracy.iloc[0])


class Matched:
    """The values of all arms at equal accuracy.

    Args:
        values: One row a value: task, strategy, sampler, seed, what, level, round, value.
    """

    def __init__(self, values: pd.DataFrame) -> None:
        self.seeds = sorted(values.seed.unique())
        rounds = sorted(values["round"].unique())
        self._wide = {
            key: seeds_by_rounds(group, self.seeds, rounds)
            for key, group in values.groupby(["task", "strategy", "sampler", "what", "level"], sort=False)
        }
        arms = values[["task", "strategy", "sampler"]].drop_duplicates()
        self.arms = [(str(row.task), str(row.strategy), str(row.sampler)) for row in arms.itertuples()]

    def accuracy(self, arm: tuple[str, str, str]) -> FloatArray:
        """(S,) accuracy after the last round."""
        last: FloatArray = self._wide[*arm, ACCURACY, "global"][:, -1]
        return last

    def at(self, arm: tuple[str, str, str], place: Place) -> tuple[FloatArray, str]:
        """(S,) a quantity where the accuracy is that of the place, and why there is none."""
        curve = Curve(utility=self._wide[*arm, ACCURACY, "global"], quantity=self._wide[*arm, place.what, place.level])
        return values_at(curve, accuracy_of(arm[0], place.share))


def arms(values: pd.DataFrame) -> pd.DataFrame:
    """Each arm: each quantity at each level and accuracy, and the accuracy after the last round, over seeds."""
    matched = Matched(values)
    rows: list[dict[str, object]] = []
    for arm in matched.arms:
        of_arm = dict(zip(("task", "strategy", "sampler"), arm, strict=True))
        last = over_seeds(matched.accuracy(arm))
        rows.append({**of_arm, "what": ACCURACY, "level": "global", "share": 1.0, **last, "reason": ""})
        for place in PLACES:
            found, reason = matched.at(arm, place)
            rows.append({**of_arm, **place._asdict(), **over_seeds(found), "reason": reason})
    return pd.DataFrame(rows)


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Claims that a strategy, or a sampler, lowers a quantity at equal accuracy, with verdicts.

    `mean` is the reference minus the arm. For a strategy it is the mean over the samplers with which it and FedAvg both
    reach the accuracy, and `pairs` is their number. For a sampler it is that over strategies, against the uniform one.
    The p values are two-sided (Student, over seeds). Holm adjusts them over all claims about one quantity at one share
    of the accuracy. A claim holds if the interval is above 0 and Holm's p is below 0.05. `reason` says why there is no
    value.

    Args:
        values: One row a value: task, strategy, sampler, seed, what, level, round, value.
    """
    matched = Matched(values)
    rows = []
    for place in PLACES:
        for family, task, arm, pairs in _comparisons(matched.arms):
            difference, count, reason = _mean_difference(matched, pairs, place)
            words = f"{arm} lowers {'the ' * (place.what == AUC)}{place.what}"
            about = {"family": family, "task": task, "arm": arm, "claim": words, **place._asdict()}
            found = over_seeds(difference)
            rows.append(
                {
                    **about,
                    **found,
                    "p": contrast(difference, np.zeros_like(difference)).p,
                    "pairs": count,
                    "reason": reason,
                }
            )
    table = pd.DataFrame(rows)
    table["holm"] = holm_by_family(table, ["what", "share"])
    ends = table[["low", "high", "holm"]].to_numpy(np.float64)
    return table.assign(verdict=[verdict_after_holm(*of) for of in ends])


def _comparisons(
    arms: Sequence[tuple[str, str, str]],
) -> Iterator[tuple[str, str, str, list[tuple[tuple[str, str, str], tuple[str, str, str]]]]]:
    """Family, task, name and pairs (reference, arm) of each strategy but FedAvg, and each sampler but the uniform."""
    for task in dict.fromkeys(task for task, _, _ in arms):
        of_task = [arm for arm in arms if arm[0] == task]
        for strategy in dict.fromkeys(strategy for _, strategy, _ in of_task):
            if strategy != FEDAVG:
                pairs = [((task, FEDAVG, arm[2]), arm) for arm in of_task if arm[1] == strategy]
                yield "strategy", task, strategy, pairs
        for sampler in SAMPLERS:
            pairs = [((task, arm[1], UNIFORM), arm) for arm in of_task if arm[2] == sampler != UNIFORM]
            if pairs:
                yield "sampler", task, sampler, pairs


def _mean_difference(
    matched: Matched, pairs: Iterable[tuple[tuple[str, str, str], tuple[str, str, str]]], place: Place
) -> tuple[FloatArray, int, str]:
    """(S,) the mean of reference − arm over the pairs that both reach the accuracy, their number, and why none does."""
    differences, reasons = [], []
    for reference, arm in pairs:
        (before, missing), (after, also) = matched.at(reference, place), matched.at(arm, place)
        reasons.append(missing or also)
        if not reasons[-1]:
            differences.append(before - after)
    if not differences:
        return np.full(len(matched.seeds), np.nan), 0, reasons[0]
    return np.mean(differences, axis=0), len(differences), ""
