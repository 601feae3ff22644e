"""Tests of `fedmem/apps/combined_rows.py`."""

from __future__ import annotations

import pandas as pd
import pytest

from fedmem import combine_runs
from fedmem.estimation.single_examples import adjust
from tests.apps.test_combination import RUNS, frame_of


def test_single_examples_name_their_set_and_have_adjusted_p() -> None:
    """Two sets of four: numbers begin again in each, and p are adjusted over all single examples of a question."""
    few = [frame_of(run, effect=1.0)[lambda f: f.subject < 4] for run in range(RUNS)]
    frames = [pd.concat([frame.assign(set="b"), frame.assign(set="a")], ignore_index=True) for frame in few]
    found = combine_runs(frames, deals=50)
    singles = found[found.example.notna()]
    assert set(zip(singles.set, singles.example, strict=True)) == {(name, j) for name in "ab" for j in range(4)}
    assert set(found[found.example.isna()].set) == {"a", "b"}
    assert (found[found.example.isna()].set == found[found.example.isna()].subject).all()
    at = singles[(singles.metric == "memorisation.p") & (singles.scope == "summary") & (singles.place == "owner")]
    at = at[at.statistic == "probability"]
    assert len(at) == 8
    assert at.p_adjusted.tolist() == pytest.approx(adjust(at.value.to_numpy()).tolist())
    assert (at.p_adjusted > at.value).any()
    assert found[~found.metric.str.endswith(".p") | found.example.isna()].p_adjusted.isna().all()
