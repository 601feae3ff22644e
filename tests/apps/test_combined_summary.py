"""Tests of `fedmem/apps/combined_summary.py`: runs of an app in sentences, and canaries that rank high untrained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedmem import combine_runs
from fedmem.apps.combination import bank_of
from fedmem.apps.combined_summary import high_without_training
from tests.apps.test_combination import REFERENCES, RUNS, frame_of


def likely(frame: pd.DataFrame) -> pd.DataFrame:
    """The same run, in which examples rank among the first of their references without any training, too."""
    rank = (REFERENCES + 1) / np.exp2(frame["exposure"])
    return frame.assign(exposure=np.log2((REFERENCES + 1) / np.maximum(1, np.rint(rank / 8))))


def test_the_summary_says_in_sentences_what_is_memorised() -> None:
    """Planted examples are memorised at both levels, and those that nobody trained on are not."""
    found = combine_runs([frame_of(run) for run in range(RUNS)], deals=200)
    text = found.attrs["summary"]
    assert "At the owning client, models memorise mine" in text
    assert "The aggregate retains memorisation of mine" in text
    null = combine_runs([frame_of(run, effect=0.0) for run in range(RUNS)], deals=200)
    assert "models memorise" not in null.attrs["summary"]
    assert "The aggregate" not in null.attrs["summary"]


def test_high_ranks_without_training_leave_exposure_unjudged() -> None:
    """Of likely examples only the gain counts: exposure has no null and no retention, and a warning says why."""
    plain, high = ([("run", make(frame_of(run))) for run in range(RUNS)] for make in (lambda frame: frame, likely))
    assert high_without_training(bank_of(plain, 0)) == {}
    assert set(high_without_training(bank_of(high, 0))) == {"mine"}
    with pytest.warns(RuntimeWarning, match="'mine' rank high without training"):
        found = combine_runs([frame for _, frame in high], deals=200)
    summary = found[found["scope"] == "summary"]
    nulls = summary[summary["metric"] == "exposure.null"]["value"]
    assert nulls.isna().all()
    retained = summary[summary["metric"] == "retention"].set_index("of")["value"]
    assert "exposure" not in retained.dropna().index
    assert "read exposure_gain" in found.attrs["summary"]
