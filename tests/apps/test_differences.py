"""Tests of `fedmem/apps/differences.py`: differences against naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fedmem.apps.differences import summarise
from fedmem.contracts.arrays import IntArray

OWNERS = np.arange(24) % 12
INCLUDED = np.arange(24) < 14


def frame_of(clients: int = 12, owners: IntArray = OWNERS, effect: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for client in [*range(clients), -1]:
        level = "global" if client < 0 else "local"
        for subject, (owner, included) in enumerate(zip(owners, INCLUDED, strict=True)):
            value = rng.normal() + effect * (included and client in (owner, -1))
            rows.append((1, level, client, "mine", subject, owner, included, value, np.nan))
    columns = ["round", "level", "client", "set", "subject", "owner", "included", "loss", "exposure"]
    return pd.DataFrame(rows, columns=columns)


def table_of(frame: pd.DataFrame, measures: tuple[str, ...]) -> Any:
    """The summary by level and contrast."""
    return summarise(frame, measures).set_index(["level", "contrast"])


def test_owners_minus_others_is_the_naive_mean() -> None:
    frame = frame_of()
    table = table_of(frame, ("loss", "exposure"))
    local = frame[frame.level == "local"].pivot_table(index="client", columns="subject", values="loss").to_numpy()
    gaps = np.array([local[owner, j] - np.delete(local[:, j], owner).mean() for j, owner in enumerate(OWNERS)])
    for contrast, chosen in (("owners - others, in", INCLUDED), ("owners - others, out", ~INCLUDED)):
        row = table.loc["local", contrast]
        assert row.value == pytest.approx(gaps[chosen].mean())
        assert (row.n, row.clients) == (chosen.sum(), len(set(OWNERS[chosen])))
    assert table.loc["local", "owners - others, in"].low > 0
    assert table.loc["local", "owners - others, out"].low < 0
    assert set(table.measure) == {"loss"}


def test_in_minus_out_is_welch_at_owner_and_aggregate() -> None:
    frame = frame_of()
    table = table_of(frame, ("loss",))
    whole = frame[frame.level == "global"]
    test = stats.ttest_ind(whole[whole.included].loss, whole[~whole.included].loss, equal_var=False)
    row = table.loc["global", "in - out"]
    assert (row.low, row.high) == pytest.approx(tuple(test.confidence_interval()))
    own = frame[frame.client == frame.owner]
    expected = own[own.included].loss.mean() - own[~own.included].loss.mean()
    assert table.loc["local", "in - out"].value == pytest.approx(expected)


def test_intervals_over_clients_where_there_are_eight() -> None:
    one_value = frame_of()
    # all examples of a owner alike: the interval must not take them for independent examples
    local = one_value.level == "local"
    rng = np.random.default_rng(1)
    shift = rng.normal(size=12)
    one_value.loc[local, "loss"] = np.where(
        one_value.client[local] == one_value.owner[local], shift[one_value.owner[local] % 12], 0.0
    )
    wide = table_of(one_value, ("loss",)).loc["local", "owners - others, in"]
    twice: Any = pd.Series(shift).repeat([2, 2, *[1] * 10])
    naive = stats.t.interval(0.95, 13, twice.mean(), twice.sem())
    assert wide.value == pytest.approx(twice.mean())
    assert wide.high - wide.low > 1.02 * (naive[1] - naive[0])
    few = table_of(frame_of(owners=OWNERS % 2), ("loss",))
    assert few.loc["local", "owners - others, in"].clients == 2
    assert np.isfinite(few.loc["local", "owners - others, in"].low)


def test_nobody_s_examples_have_no_difference() -> None:
    assert summarise(frame_of(owners=np.full(24, -1)), ("loss",)).empty


def test_aggregate_and_null_have_rows_of_their_own() -> None:
    frame = frame_of()
    frame["exposure"], frame["references"] = 1.0, 3
    table = table_of(frame, ("loss", "exposure"))
    whole = frame[frame.level == "global"]
    loss = table[table.measure == "loss"]
    for contrast, side in (("aggregate, in", True), ("aggregate, out", False)):
        values = whole[whole.included == side].loss.to_numpy(np.float64)
        row = loss.loc["global", contrast]
        assert (row.value, row.n) == (pytest.approx(values.mean()), len(values))
        ends = stats.t.interval(0.95, len(values) - 1, float(values.mean()), float(stats.sem(values)))
        assert (row.low, row.high) == pytest.approx(ends)
    # ranks 1 to 4 with equal probability: (2 + 1 + log2(4 / 3) + 0) / 4 bits
    null = table.loc["global", "null"]
    assert null.value == pytest.approx((3 + np.log2(4 / 3)) / 4)
    assert null.measure == "exposure"


def test_intervals_of_shares_hold_nothing_impossible() -> None:
    frame = frame_of()
    frame["correct"] = (frame.included & frame.client.isin([-1]) | (frame.client == frame.owner)).astype(float)
    frame.loc[frame.subject < 2, "correct"] = 1.0
    table = table_of(frame, ("correct",))
    row = table.loc["global", "aggregate, in"]
    assert (row.value, row.high) == (1.0, 1.0)
    assert row.low == pytest.approx(stats.binomtest(14, 14).proportion_ci(method="wilson").low)
    assert (table.low.dropna() >= -1).all()
    assert (table.high.dropna() <= 1).all()
    gap = table.loc["local", "owners - others, in"]
    assert (gap.high, gap.low < 1) == (1.0, True)
