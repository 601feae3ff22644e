"""From examples and accuracies to the table: one value a seed, its mean, Student's interval and Holm's p."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from fedmem.studies.experiment import holm_by_family

HIGH = 0.25  # what Feldman and Zhang call memorised
FAMILY = ["question", "data", "level"]  # tests that are corrected together


def results(natural: pd.DataFrame, injected: pd.DataFrame, pairs: pd.DataFrame, removed: pd.DataFrame) -> pd.DataFrame:
    """All rows; `p` and `holm` where the mean is tested against 0, corrected within question, data and level."""
    table = pd.DataFrame([*memorisation(natural, injected), *influence(natural, injected, pairs), *removal(removed)])
    return table.assign(holm=holm_by_family(table, FAMILY))


def memorisation(natural: pd.DataFrame, injected: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """How much is memorised; kinds are tested against the ordinary rows of the same bank."""
    for key, part in natural.groupby(["data", "level"]):
        place = (*key, "natural")
        yield row("memorisation", place, "mean", mean(part, "memorisation"))
        yield row("memorisation", place, f"share >= {HIGH}", share(part, "memorisation"))
        yield row("memorisation", place, f"share >= {HIGH} with coins shuffled", share(part, "memorisation_shuffled"))
        yield row("memorisation", place, "correlation of halves", agreement(part, "memorisation"))
    for key, part in injected.groupby(["data", "level"]):
        ordinary = mean(part[part.kind == "typical"], "memorisation")
        for kind, group in part.groupby("kind", sort=False):
            place = (*key, kind)
            yield row("memorisation", place, "mean", mean(group, "memorisation"))
            yield row("memorisation", place, f"share >= {HIGH}", share(group, "memorisation"))
            if kind != "typical":
                yield row("memorisation", place, "less typical", mean(group, "memorisation") - ordinary, tested=True)


def influence(natural: pd.DataFrame, injected: pd.DataFrame, pairs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Expected right answers on the test set that one example adds, by kind, and how many pairs are significant."""
    for key, part in injected.groupby(["data", "level"]):
        for kind, group in part.groupby("kind", sort=False):
            yield row("influence", (*key, kind), "mean", mean(group, "cross_influence"), tested=True)
    for metric, of_metric in pairs.groupby("metric", sort=False):
        for place, part in of_metric.groupby(["data", "level", "subject"], sort=False):
            yield row("influence", place, str(metric), mean(part, "value"))
    for key, part in natural.groupby(["data", "level"]):
        gaps = []
        for ranked_half, measured_half in ("ab", "ba"):
            # Chosen in one half of the runs, read in the other: in the same runs the noise of both goes together.
            top = part.groupby("seed")[f"memorisation_{ranked_half}"].rank(pct=True) > 0.9
            gaps.append(
                mean(part[top], f"cross_influence_{measured_half}")
                - mean(part[~top], f"cross_influence_{measured_half}")
            )
        place = (*key, "natural")
        yield row("influence", place, "most memorised tenth less rest", (gaps[0] + gaps[1]) / 2, tested=True)
        yield row("influence", place, "correlation of halves", agreement(part, "cross_influence"))


def removal(accuracies: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Test accuracy in per cent: its change when rows are removed, and the most memorised against random ones."""
    for key, part in accuracies.groupby(["data", "level"]):
        by_seed = 100 * part.groupby(["arm", "share", "seed"])["value"].mean()
        yield row("removal", (*key, "nothing"), "accuracy", by_seed["nothing", 0.0])
        for size in sorted(set(part["share"]) - {0.0}):
            for arm in ("random", "local", "global", "same classes as local", "same classes as global"):
                change = by_seed[arm, size] - by_seed["nothing", 0.0]
                yield row("removal", (*key, f"{size:.0%} {arm}"), "change", change)
            for arm in ("local", "global"):
                for control in ("random", f"same classes as {arm}"):
                    gap = by_seed[arm, size] - by_seed[control, size]
                    yield row("removal", (*key, f"{size:.0%} {arm}"), f"less {control}", gap, tested=True)


def mean(part: pd.DataFrame, column: str) -> pd.Series:
    """The mean of every seed."""
    return part.groupby("seed")[column].mean()


def share(part: pd.DataFrame, column: str) -> pd.Series:
    """The share of examples that count as memorised, of every seed."""
    return part[column].ge(HIGH).groupby(part["seed"]).mean()


def agreement(part: pd.DataFrame, column: str) -> pd.Series:
    """How well two halves of the runs agree on the examples, of every seed: Pearson's correlation."""
    return pd.Series({seed: group[f"{column}_a"].corr(group[f"{column}_b"]) for seed, group in part.groupby("seed")})


def row(
    question: str, place: Sequence[Hashable], measure: str, values: pd.Series, *, tested: bool = False
) -> dict[str, Any]:
    """Mean over seeds and Student's interval, with p where it is a question whether the mean is 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one seed has no interval, equal seeds have no p
        test = ttest_1samp(values.to_numpy(np.float64), 0.0)
        low, high = test.confidence_interval()
    data, level, what = place
    numbers = {"mean": values.mean(), "low": low, "high": high, "seeds": len(values)}
    labels = {"question": question, "data": data, "level": level, "what": what, "measure": measure}
    return {**labels, **numbers, "p": test.pvalue if tested else np.nan}
