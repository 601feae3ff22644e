"""From the values of all cells to what the choice of a strategy, and of a sampler, does: effects, shares, gates.

A table of values has a row for each data set, strategy, sampler, seed and quantity. A quantity is a metric of a kind of
example at a level. A seed is a replicate: it draws data, coins, canaries, weights and cohorts again.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fedmem.contracts.arrays import FloatArray
from fedmem.estimation.statistics import holm
from fedmem.studies.contrasts import LEVEL, contrast, mean_of

QUANTITY = ["data", "metric", "with", "kind", "level"]
MEMORISED = (
    ("exposure", "", "random_pattern"),
    ("memorisation", "", "random_pattern"),
    ("memorisation", "", "mislabelled"),
    ("auc", "lira", "random_pattern"),
    ("auc", "lira", "mislabelled"),
)
PRIMARY = (
    *((*quantity, level) for level in ("global", "local") for quantity in MEMORISED),
    ("test_accuracy", "", "", "global"),
)
"""The tested quantities, at both levels; everything else is only described. In matched.csv they were chosen beforehand.

In effects.csv the local quantities were added after its first reading, when only the global ones had been tested.
"""

FACTORS = {"strategy": "sampler", "sampler": "strategy"}
"""The factor that varies, and the factor over which it is averaged."""


def effects(values: pd.DataFrame, reference: dict[str, str]) -> pd.DataFrame:
    """Each strategy against a reference, averaged over samplers within each seed, and each sampler in the same way.

    p is adjusted (Holm) over the `PRIMARY` differences of a data set, factor and level; others have no verdict.
    Seeds that lack a cell of either side are left out of that difference. `saturated` and `reference_saturated`: the
    mean, or that of the reference, is at the ceiling of the measure; with both, no difference can be seen.
    """
    rows = []
    for factor, other in FACTORS.items():
        for quantity, group in values.groupby(QUANTITY, sort=False):
            cells = group.pivot_table(index="seed", columns=[factor, other], values="value", dropna=False, sort=False)
            # with skipna a seed would be compared over other samplers than the reference
            means = cells.T.groupby(level=0, sort=False).mean().T.where(cells.notna().T.groupby(level=0).all().T)
            base = means[reference[factor]].to_numpy(dtype=np.float64)
            top = group.saturated_from.min()
            for name in means:
                here = means[name].to_numpy(dtype=np.float64)
                mean = mean_of(here)
                row = dict(zip(QUANTITY, quantity, strict=True)) | {"factor": factor, "setting": name}
                row |= {"mean": mean.value, "mean_low": mean.low, "mean_high": mean.high}
                row |= {"saturated": mean.value >= top, "saturated_from": top}
                if name != reference[factor]:
                    difference = contrast(here, base)
                    row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
                    row |= {"p": difference.p, "seeds": difference.n, "reference_saturated": mean_of(base).value >= top}
                rows.append(row)
    return adjust_and_judge(pd.DataFrame(rows), ["data", "factor", "level"])


def adjust_and_judge(table: pd.DataFrame, families: list[str]) -> pd.DataFrame:
    """The same with p adjusted (Holm) over the primary differences of each family, and a verdict on each of them.

    It is `saturated` where both sides are at the ceiling, whatever p is. Otherwise it is `higher` or `lower` by the
    adjusted p, or `not significant`, which is no evidence that there is no difference. `low` and `high` are the
    interval of one difference alone. It may exclude 0 where the verdict, which allows for all tests, is
    `not significant`.
    """
    primary = pd.MultiIndex.from_frame(table[QUANTITY[1:]]).isin(PRIMARY)
    table["p_adjusted"], table["verdict"] = np.nan, ""
    for _, group in table[primary & table.p.notna()].groupby(families):
        adjusted = holm(group.p.to_numpy())
        table.loc[group.index, "p_adjusted"] = adjusted
        direction = np.where(group.difference > 0, "higher", "lower")
        called = np.where(adjusted < LEVEL, direction, "not significant")
        at_ceiling = (group.saturated & (group.reference_saturated == True)).to_numpy()  # noqa: E712 - it may be missing
        table.loc[group.index, "verdict"] = np.where(at_ceiling, "saturated", called)
    return table


def stopping_round(curve: pd.Series, accuracy: float) -> int | None:
    """The first round at which FedAvg is at least as accurate as a strategy at its end; None where it never is.

    Args:
        curve: Test accuracy of FedAvg by round, the mean over seeds, indexed by rounds in ascending order.
        accuracy: That of the strategy after its last round, the mean over the same seeds.

    Examples:
        >>> stopping_round(pd.Series([0.4, 0.6, 0.5, 0.7], index=[1, 2, 3, 4]), 0.55)
        2
    """
    reached = curve.index[curve.to_numpy() >= accuracy]
    return int(reached[0]) if len(reached) else None


def compare_matched(values: pd.DataFrame) -> pd.DataFrame:
    """Each strategy against FedAvg after as many rounds (`full`), and against FedAvg stopped as accurate (`stopped`).

    `values` has a row for each data set, strategy, seed, quantity and `stop`. That is 0 for a strategy after all its
    rounds, and otherwise the round at which FedAvg stops for that strategy. `n` is the mean number of audit examples
    behind a value of the strategy, and `fedavg_n` that of FedAvg. Each p is adjusted (Holm) over the primary quantities
    and strategies of a data set, comparison and level. A difference of accuracy is a cost: read its interval, whatever
    its verdict.
    """
    rows = []
    for quantity, group in values.groupby(QUANTITY, sort=False):
        top = group.saturated_from.min()
        ends = group[group.stop == 0]
        fedavg = _by_seed(ends[ends.strategy == FEDAVG])
        for strategy, arm in ends[ends.strategy != FEDAVG].groupby("strategy", sort=False):
            here, stopped = _by_seed(arm), group[(group.strategy == strategy) & (group.stop > 0)]
            for against, base in (("full", fedavg), ("stopped", _by_seed(stopped))):
                if base.empty:
                    continue
                pair = here.join(base.add_suffix("_fedavg"))
                difference = contrast(*(pair[name].to_numpy(dtype=np.float64) for name in ("value", "value_fedavg")))
                row = dict(zip(QUANTITY, quantity, strict=True)) | {"strategy": strategy, "against": against}
                row |= {"stop": int(stopped.stop.max()) if against == "stopped" else 0}
                row |= {"mean": pair.value.mean(), "fedavg": pair.value_fedavg.mean(), "difference": difference.value}
                row |= {"low": difference.low, "high": difference.high, "p": difference.p, "seeds": difference.n}
                row |= {"n": pair.n.mean(), "fedavg_n": pair.n_fedavg.mean()}
                row |= {"saturated": row["mean"] >= top, "reference_saturated": row["fedavg"] >= top}
                rows.append(row)
    return adjust_and_judge(pd.DataFrame(rows), ["data", "against", "level"])


FEDAVG = "{kind: fedavg}"
"""The strategy that all others are compared with."""


def _by_seed(arm: pd.DataFrame) -> pd.DataFrame:
    return arm.set_index("seed")[["value", "n"]]


def shares(values: pd.DataFrame) -> pd.DataFrame:
    """How much of the spread within seeds is due to the strategy, the sampler, and their interplay: omega squared.

    With y of strategy a, sampler b and seed s, less the mean of its seed, and MS the mean square of what is left:
    (SS - df MS) / (SS of all + MS), unbiased to first order, so that it may be slightly negative where there is
    nothing. Interval: jackknife over seeds. Only seeds that have all cells. `saturated`: the mean over all cells is at
    the ceiling of the measure. The shares are then those of what is left of the differences.
    """
    rows = []
    for quantity, group in values.groupby(QUANTITY, sort=False):
        cells = group.pivot_table(
            index=["strategy", "sampler"], columns="seed", values="value", dropna=False, sort=False
        )
        cells = cells.dropna(axis="columns")
        size = (cells.index.get_level_values(0).nunique(), cells.index.get_level_values(1).nunique(), cells.shape[1])
        if size[2] < 3 or size[0] * size[1] != len(cells):
            continue
        cube = cells.to_numpy(dtype=np.float64).reshape(size)
        whole = omega(cube)
        jackknife = np.stack([omega(np.delete(cube, seed, axis=2)) for seed in range(size[2])])
        spread = np.sqrt((size[2] - 1) * ((jackknife - jackknife.mean(0)) ** 2).mean(0))
        for source, value, error in zip(("strategy", "sampler", "interplay"), whole, spread, strict=True):
            row = dict(zip(QUANTITY, quantity, strict=True)) | {"source": source, "share": value}
            at_ceiling = bool(cube.mean() >= group.saturated_from.min())
            rows.append(row | {"standard_error": error, "seeds": size[2], "saturated": at_ceiling})
    return pd.DataFrame(rows)


def omega(cube: FloatArray) -> FloatArray:
    """(3,) omega squared of the first factor, the second, and their interaction, from (A, B, S) with seeds as blocks.

    >>> grid = np.arange(3.0)[:, None, None] + np.zeros((3, 2, 4))
    >>> omega(grid + np.arange(4.0)).round(3).tolist()
    [1.0, 0.0, 0.0]
    """
    first, second, seeds = cube.shape
    inside = cube - cube.mean(axis=(0, 1), keepdims=True)
    a, b, ab = inside.mean(axis=(1, 2)), inside.mean(axis=(0, 2)), inside.mean(axis=2)
    parts = np.array([second * seeds * (a**2).sum(), first * seeds * (b**2).sum(), seeds * (ab**2).sum()])
    parts[2] -= parts[0] + parts[1]
    freedom = np.array([first - 1, second - 1, (first - 1) * (second - 1)])
    total = (inside**2).sum()
    noise = (total - parts.sum()) / ((first * second - 1) * (seeds - 1))
    if total == 0:
        return np.zeros(3)
    return np.asarray((parts - freedom * noise) / (total + noise))


def gates(values: pd.DataFrame, reference: dict[str, str], clipping: str, atypical: str) -> pd.DataFrame:
    """The conditions that other results require, with the number of cells or data sets in which each holds."""
    exposure = values[(values.metric == "exposure") & (values.kind == "random_pattern")]
    gains = exposure.assign(value=exposure.value - exposure.null)
    reference_gains = gains[(gains.strategy == reference["strategy"]) & (gains.level == "global")]
    uniform = gains[(gains.sampler == reference["sampler"]) & (gains.level == "global")]
    memorised = values[(values.metric == "memorisation") & (values.level == "local")]
    # the sampler prefers owners of atypical examples, and canaries are none
    wrong = values[(values.metric == "auc") & (values.kind == "mislabelled") & (values.level == "global")]
    wrong = wrong[wrong.strategy == reference["strategy"]]
    return pd.DataFrame(
        [
            _gate("the owner knows its canaries (exposure above the null)", _cells(gains[gains.level == "local"])),
            _gate("the aggregate of the plain mean knows them too", _cells(reference_gains)),
            _gate(
                "canaries are memorised more than typical examples, at the owner",
                _lowest_differences(memorised, "kind", "random_pattern", "typical", ["data", "strategy", "sampler"]),
            ),
            _gate(
                "clipping updates lessens what the aggregate knows",
                _lowest_differences(uniform, "strategy", reference["strategy"], clipping, ["data"]),
            ),
            _gate(
                "sampling owners of wrong labels more often makes these easier to tell from others (LiRA)",
                _lowest_differences(wrong, "sampler", atypical, reference["sampler"], ["data"]),
            ),
        ]
    )


def _gate(claim: str, lows: list[float]) -> dict[str, object]:
    """A claim holds where the lower end of its 95 % interval over seeds is above zero."""
    return {"gate": claim, "holds": sum(low > 0 for low in lows), "of": len(lows)}


def _cells(gains: pd.DataFrame) -> list[float]:
    parts = gains.groupby(["data", "strategy", "sampler"], sort=False)
    return [mean_of(group.value.to_numpy(dtype=np.float64)).low for _, group in parts]


def _lowest_differences(values: pd.DataFrame, column: str, more: str, less: str, place: list[str]) -> list[float]:
    """The lower end of the paired difference between two values of a column, at each place that has both."""
    lows = []
    for _, group in values[values[column].isin([more, less])].groupby(place, sort=False):
        seeds = group.pivot_table(index="seed", columns=column, values="value", dropna=False)
        if {more, less} <= set(seeds):
            lows.append(contrast(*(seeds[name].to_numpy(dtype=np.float64) for name in (more, less))).low)
    return lows
