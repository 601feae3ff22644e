"""Claims about adapted models, each as a difference that is above 0 if it holds, with its verdict.

The claims were written before any seed of the tables was run. Does each of three networks lower each of four measures
at both levels, at equal accuracy? Does class inversion find members?
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.adaptation.analysis import (
    ACCURACY,
    AUC,
    LEVELS,
    MEMORISATION,
    PSNR,
    READ,
    READ_OUT,
    STARTS,
    curve,
    share_interval,
)
from fedmem.contracts.arrays import FloatArray
from fedmem.studies.contrasts import Contrast, contrast
from fedmem.studies.experiment import holm_by_family, verdict_after_holm
from fedmem.studies.matched import difference_at

ADAPTED = ("tanh", "mean pooling", "narrow")

INVERTED = ("reference", "logistic")

MEASURES = {MEMORISATION: "memory", AUC: "memory", PSNR: "updates", READ: "updates"}
"""Measure -> the part of the experiment that has it."""

LOWERS = {
    MEMORISATION: "lowers memorisation",
    AUC: "lowers the AUC of LiRA",
    PSNR: "lowers the PSNR that is due to the image",
    READ: "lowers the share of identified images",
}

COST = 0.02
"""A loss of accuracy below this is low."""

RUNS = 4
"""Runs of a seed in `classes.yaml`."""

COLUMNS = ("family", "claim", "arm", "measure", "level", "accuracy")


def gates(values: pd.DataFrame) -> pd.DataFrame:
    """Each claim: the mean over seeds, Student's 95 % interval, p, p adjusted by Holm, and a verdict.

    A claim holds if its interval is above 0 and Holm's p within its family is below 0.05. `tests` is the number of
    tests of the family. `reason` says why two arms have no accuracy in common.

    Args:
        values: One row a value: part, arm, what, level, round, seed, value.
    """
    rows = pd.DataFrame([*_at_equal_accuracy(values), *_costs(values), *_conditions(values), *_inversions(values)])
    rows = rows.assign(holm=holm_by_family(rows, ["family", "level"]))
    rows["tests"] = rows.groupby(["family", "level"])["p"].transform("count")
    return rows.assign(
        verdict=[verdict_after_holm(*ends) for ends in rows[["low", "high", "holm"]].to_numpy(np.float64)]
    )


def _at_equal_accuracy(values: pd.DataFrame) -> Iterator[dict[str, object]]:
    """By how much each arm lowers each measure at the same accuracy."""
    for measure, part in MEASURES.items():
        accuracy = same_accuracy(values, part)
        for arm in ADAPTED:
            for level in LEVELS:
                reference, adapted = (curve(values, part, name, measure, level) for name in ("reference", arm))
                found = difference_at(reference, adapted, accuracy)
                key = (measure, f"{arm} {LOWERS[measure]}", arm, measure, level, accuracy)
                yield {**_row(key, found.difference), "reason": found.reason}


def same_accuracy(values: pd.DataFrame, part: str) -> float:
    """The highest test accuracy that all arms reach, by their means over seeds; it depends on no other quantity."""
    of_part = values[(values.part == part) & (values.what == ACCURACY) & (values["round"] > 0)]
    return float(of_part.groupby(["arm", "round"])["value"].mean().groupby("arm").max().min())


def _costs(values: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The cost of each arm in accuracy after the same number of rounds."""
    for part in ("memory", "updates"):
        ends = {arm: _last(values, part, arm, ACCURACY, "global") for arm in ("reference", *ADAPTED)}
        for arm in ADAPTED:
            claim = f"{arm} costs less than .02 of accuracy, {part}"
            key = (f"cost, {part}", claim, arm, ACCURACY, "global", np.nan)
            yield _row(key, _above(COST - (ends["reference"] - ends[arm])))


def _conditions(values: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Whether there is anything to lower: each measure of the reference at the end of training."""
    for measure, part in MEASURES.items():
        for level in LEVELS:
            of_seeds = _last(values, part, "reference", measure, level) - (0.5 if measure == AUC else 0.0)
            name = f"{measure} above ½" if measure == AUC else measure
            yield _row(("condition", f"reference, {name}", "reference", measure, level, np.nan), _above(of_seeds))


def _inversions(values: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Whether images of class inversion are nearer to examples that are in than to those that are out."""
    for arm in INVERTED:
        for measure in (READ, PSNR):
            for start in STARTS.values():
                for level in LEVELS:
                    of_seeds = _last(values, "classes", arm, f"{measure}, {start}", level)
                    key = (f"class inversion, {measure}", f"{arm}, {start}, {measure}", arm, measure, level, np.nan)
                    row = _row(key, _above(of_seeds))
                    if measure == READ:
                        out = _last(values, "classes", arm, f"{READ_OUT}, {start}", level)
                        row |= share_interval(of_seeds, out, RUNS)
                    yield row


def _last(values: pd.DataFrame, part: str, arm: str, what: str, level: str) -> FloatArray:
    """(S,) a quantity at the end of training; NaN where a seed lacks it."""
    of_part = values[values.part == part]
    seeds = sorted(of_part.seed.unique())
    chosen = of_part[(of_part.arm == arm) & (of_part.what == what) & (of_part.level == level)]
    chosen = chosen[chosen["round"] == of_part["round"].max()]
    return np.asarray(chosen.set_index("seed")["value"].reindex(seeds), dtype=np.float64)


def _above(of_seeds: FloatArray) -> Contrast:
    """The mean over seeds against 0; undefined where a seed has no value."""
    usable = of_seeds if np.isfinite(of_seeds).all() else np.full(len(of_seeds), np.nan)
    return contrast(usable, np.zeros(len(usable)))


def _row(key: tuple[object, ...], found: Contrast) -> dict[str, object]:
    """One claim as a row."""
    interval = {"mean": found.value, "low": found.low, "high": found.high, "seeds": found.n, "p": found.p}
    return {**dict(zip(COLUMNS, key, strict=True)), **interval, "reason": ""}
