"""Comparisons of values that are made by hand, so that every answer is known."""

from __future__ import annotations

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
    assert {row.verdict for row in called} == {"unresolved"}


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
