"""Comparisons of values that are made by hand, so that every answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.execution.run import run
from fedmem.studies.comparison import Comparison
from fedmem.studies.contrasts import contrast, simultaneous
from fedmem.studies.quantities import Quantity, Series
from tests.labelling import labels
from tests.tiny import tiny

SEEDS = 6
SCATTER = np.array([-1.0, 1.0, -0.5, 0.5, -0.2, 0.2])
EXPOSURE = Quantity(metric="exposure", labels=labels(), kind="canary", level="global", title="exposure", headline=True)


def series(quantity: Quantity, values: FloatArray, **more: FloatArray) -> Series:
    """The values (settings, seeds) of a quantity over 10 examples each."""
    unknown = np.full(values.shape, np.nan)
    arrays = {"values": values, "null": unknown, "n": np.full(values.shape, 10.0), "paired": unknown, "fpr": unknown}
    given: dict[str, Any] = {**arrays, **more}
    return Series(quantity=quantity, rounds={}, **{"paired_null": given["null"], **given})


def compared(*parts: Series) -> Comparison:
    """All settings against the first one."""
    settings = parts[0].values.shape[0]
    return Comparison(
        settings=tuple((("strategy", str(number)),) for number in range(settings)),
        reference=(0,) * settings,
        seeds=tuple(range(SEEDS)),
        series=parts,
    )


def test_a_verdict_is_of_the_adjusted_p() -> None:
    """Each of 12 differences is significant alone at .05, and none is among all of them."""
    difference = 0.6 + SCATTER
    p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    assert 0.05 / 12 < p < 0.2
    difference += stats.t.ppf(0.985, SEEDS - 1) * difference.std(ddof=1) / np.sqrt(SEEDS) - 0.6
    p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    assert p == pytest.approx(0.03)
    values = np.stack([np.zeros(SEEDS), difference])
    alone = compared(series(EXPOSURE, values))
    assert [row.verdict for row in alone.rows] == ["", "higher"]
    many = compared(*(series(replace(EXPOSURE, kind=f"canary {number}"), values) for number in range(12)))
    called = [row for row in many.rows if row.contrast is not None]
    assert [row.contrast.p for row in called if row.contrast is not None] == pytest.approx([0.03] * 12)
    assert {row.verdict for row in called} == {"not significant"}


def test_a_comparison_takes_off_each_levels_own_null() -> None:
    """With the null of the owning client on both sides the ratio would be .6, and .5 is kept."""
    local = 1.44 + 2.0 + 0.01 * np.stack([SCATTER, SCATTER[::-1]])
    whole = 1.64 + (local - 1.44) / 2
    nulls = {"null": np.full(local.shape, 1.44), "paired_null": np.full(local.shape, 1.64)}
    part = series(replace(EXPOSURE, level="local"), local, paired=whole, **nulls)
    assert [kept.ratio.value for kept in compared(part).retention] == pytest.approx([0.5, 0.5])


def test_null_of_a_comparison_is_that_of_its_level(tmp_path: Path) -> None:
    """`auc.null` of both levels differ by hundredths with eight runs; the rows of the run say how."""
    changes = {"runs": 8, "estimators": [{"kind": "membership", "attack": {"kind": "lira"}}]}
    found = fedmem.read(run(tiny(**changes), out=tmp_path))
    comparison = Comparison.of({(0, 0): found}, [()], [0], [0])
    nulls = {
        (row.level, row.reading.subject): row.reading.value
        for row in found.rows()
        if row.reading.metric == "auc.null" and row.round is None and row.reading.labels.get("place") != "others"
    }
    local = [one for one in comparison.series if (one.quantity.metric, one.quantity.level) == ("auc", "local")]
    assert local
    for one in local:
        assert one.null[0, 0] == nulls["local", one.quantity.kind]
        assert one.paired_null[0, 0] == nulls["global", one.quantity.kind]
    assert any(one.null[0, 0] != one.paired_null[0, 0] for one in local)


def test_a_difference_of_retentions_counts_every_example() -> None:
    """A seed of 300 examples weighs 100 times a seed of 3, in each of the two ratios."""
    n = np.array([[300.0, 3.0, 300.0, 3.0, 300.0, 3.0], [3.0, 300.0, 3.0, 300.0, 3.0, 300.0]])
    kept = np.array([[0.9, 0.1, 0.9, 0.1, 0.9, 0.1], [0.9, 0.1, 0.9, 0.1, 0.9, 0.1]])
    local = 1.0 + 0.02 * np.stack([SCATTER, SCATTER[::-1]])
    quantity = replace(EXPOSURE, level="local")
    part = series(quantity, local, null=np.zeros(local.shape), n=n, paired=kept * local)
    reference, other = compared(part).retention
    first, second = ((n[i] * kept[i] * local[i]).sum() / (n[i] * local[i]).sum() for i in (0, 1))
    assert (reference.ratio.value, other.ratio.value) == pytest.approx((first, second))
    assert first > 0.88
    assert second < 0.12
    assert reference.difference is None
    assert other.difference is not None
    assert other.difference.value == pytest.approx(second - first), "without weights it would be about 0"


ACCURACY = Quantity(
    metric="accuracy", labels=labels(), kind="", level="global", title="accuracy", headline=True, range=(0.0, 1.0)
)


def null_values(rng: np.random.Generator, kinds: int, correlation: float) -> FloatArray:
    """(kinds, 3 settings, seeds) without any difference between settings; kinds are correlated within seeds."""
    shared = rng.normal(size=(3, SEEDS))
    own = rng.normal(size=(kinds, 3, SEEDS))
    return np.asarray(np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_noise_is_called_in_at_most_one_table_of_twenty(correlation: float) -> None:
    """Family-wise error of 4 kinds × 2 pairs, three standard errors of 200 tables above .05 at most."""
    rng = np.random.default_rng(17)
    wrong = alone = 0
    for _ in range(200):
        values = null_values(rng, 4, correlation)
        single = [contrast(part[other], part[0]) for part in values for other in (1, 2)]
        adjusted = [simultaneous(difference, len(single)) for difference in single]
        outside = [difference.low * difference.high > 0 for difference in adjusted]
        assert outside == [difference.p < 0.05 for difference in adjusted]
        wrong += any(outside)
        alone += any(difference.p < 0.05 for difference in single)
    assert wrong <= 200 * (0.05 + 3 * np.sqrt(0.05 * 0.95 / 200))
    assert alone > 30, "without an adjustment far more are called"


def test_verdicts_are_those_of_the_adjusted_intervals() -> None:
    values = np.random.default_rng(18).normal(size=(4, 3, SEEDS)) + np.array([0.0, 1.5, 3.0])[:, None]
    rows = compared(*(series(replace(EXPOSURE, kind=f"k{i}"), part) for i, part in enumerate(values))).rows
    assert {row.tests for row in rows} == {8}
    for row in rows:
        if row.contrast is not None:
            assert row.adjusted == simultaneous(row.contrast, 8)
            assert (row.verdict == "higher") == (row.adjusted.low > 0) == (row.adjusted.p < 0.05)
    assert {row.verdict for row in rows} == {"", "higher", "not significant"}


def test_what_else_is_measured_changes_no_p() -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, SEEDS))
    parts = [series(replace(EXPOSURE, kind=kind), part) for kind, part in zip("ab", values, strict=True)]
    more = [*parts, series(ACCURACY, np.random.default_rng(4).random((3, SEEDS)))]
    few, many = compared(*parts), compared(*more)
    adjusted = [row.adjusted for row in many.rows if row.quantity.metric == "exposure"]
    assert adjusted == [row.adjusted for row in few.rows]
    assert {row.tests for row in few.rows} == {4}
    asked = replace(many, measures=("exposure", "accuracy"))
    assert {row.tests for row in asked.rows} == {6}, "measures that were asked for together are one question"


def test_a_failed_setting_changes_no_other_p() -> None:
    values = np.random.default_rng(5).normal(size=(3, SEEDS))
    whole = compared(series(EXPOSURE, values))
    values = values.copy()
    values[2] = np.nan
    failed = compared(series(EXPOSURE, values))
    assert failed.rows[1] == whole.rows[1]
    assert failed.rows[2].verdict == "undefined"
    assert failed.rows[2].adjusted is not None
    assert np.isnan(failed.rows[2].adjusted.p)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (np.zeros(SEEDS), "identical"),
        (np.full(SEEDS, 0.5), "undefined"),
        (np.array([0.5, *[np.nan] * (SEEDS - 1)]), "undefined"),
        (np.full(SEEDS, np.nan), "undefined"),
        (np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), "not significant"),
        (5 + SCATTER, "higher"),
        (-5 + SCATTER, "lower"),
    ],
)
def test_verdicts_of_ties_gaps_and_single_seeds(difference: FloatArray, verdict: str) -> None:
    row = compared(series(EXPOSURE, np.stack([np.zeros(SEEDS), difference]))).rows[1]
    assert row.verdict == verdict


def test_retention_differences_are_adjusted_too() -> None:
    local = 2.0 + 0.05 * np.stack([SCATTER, SCATTER[::-1], np.roll(SCATTER, 1)])
    kept = np.array([0.5, 0.6, 0.7])[:, None] + 0.05 * np.stack([SCATTER, np.roll(SCATTER, 2), SCATTER[::-1]])
    quantity = replace(EXPOSURE, level="local")
    part = series(quantity, local, null=np.zeros(local.shape), paired=kept * local)
    single = compared(series(quantity, local[:2], null=np.zeros((2, SEEDS)), paired=(kept * local)[:2]))
    (_, first, _), (_, alone) = compared(part).retention, single.retention
    assert (first.tests, alone.tests) == (2, 1)
    assert first.difference is not None
    assert alone.difference is not None
    assert first.difference.value == alone.difference.value
    assert first.difference.high > alone.difference.high
    ratio = stats.t.ppf(1 - 0.05 / 4, SEEDS - 1) / stats.t.ppf(1 - 0.05 / 2, SEEDS - 1)
    widths = [entry.high - entry.low for entry in (first.difference, alone.difference)]
    assert widths[0] / widths[1] == pytest.approx(ratio)


def test_interval_and_p_of_a_retention_difference_agree() -> None:
    """By the mean of the pseudo-values, p is .059 where the interval around the difference excludes 0."""
    gap = [math.nan] * (SEEDS - 4)
    whole = np.array([[0.193, 0.672, 0.132, 0.279, *gap], [0.813, 1.014, 0.663, 0.426, *gap]])
    local = np.array([[0.866, 1.333, 0.661, 0.7, *gap], [1.114, 1.186, 1.531, 0.58, *gap]])
    part = series(replace(EXPOSURE, level="local"), local, null=np.zeros(local.shape), paired=whole)
    found = compared(part).retention[1].difference
    assert found is not None

    def kept(seeds: list[int]) -> float:
        first, second = whole[:, seeds].sum(axis=1) / local[:, seeds].sum(axis=1)
        return float(second - first)

    without = np.array([kept([seed for seed in range(4) if seed != left]) for left in range(4)])
    error = math.sqrt(3 / 4 * np.square(without - without.mean()).sum())
    value = kept([0, 1, 2, 3])
    assert found.value == pytest.approx(value)
    assert found.low == pytest.approx(value - stats.t.ppf(0.975, 3) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(value / error, 3))
    assert found.low > 0
    assert found.p < 0.05


def test_retention_left_to_one_seed_has_no_interval() -> None:
    """Without the seed that has all of the effect there is no ratio."""
    n = np.tile([100.0, 1.0, 1.0, 1.0, 1.0, 1.0], (2, 1))
    local = np.tile([1.0, 0.0, 0.0, 0.0, 0.0, 0.0], (2, 1))
    part = series(replace(EXPOSURE, level="local"), local, null=0 * n, n=n, paired=np.array([[0.5], [0.75]]) * local)
    found = compared(part).retention[1].difference
    assert found is not None
    assert found.value == pytest.approx(0.25)
    assert np.isnan([found.low, found.high, found.p]).all()
