"""Forgetting: claims on made values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.forgetting import analysis


def made(seeds: int = 5) -> pd.DataFrame:
    """Half is kept, and 0.9 of what is left stays each round; of patterns with four copies 0.95."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for batches in ("per_run", "shared"):
            for kind in analysis.KINDS:
                rate = 0.95 if kind == "four_times" else 0.9
                cell = {"seed": seed, "batches": batches, "kind": kind, "level": "global"}
                rows.append({**cell, "what": "kept", "since": 0, "value": 0.5 + rng.normal(0, 0.01)})
                for since in (1, 2, 4, 8):
                    value = rate**since + rng.normal(0, 0.01)
                    rows.append({**cell, "what": "left", "since": since, "value": value})
                    gain = 0.1 * (batches == "shared")
                    rows.append({**cell, "what": "score_left", "since": since, "value": value + gain})
                for level, onset in (("local", 2.0), ("global", 4.0)):
                    row = {**cell, "level": level, "what": "onset", "since": 0}
                    rows.append({**row, "value": onset + rng.normal(0, 0.1)})
            for kind, onset in (("mislabelled", 7.0), ("typical", 3.0)):
                row = {"seed": seed, "batches": batches, "kind": kind, "what": "learning_onset", "since": 0}
                rows += [{**row, "level": level, "value": onset + rng.normal(0, 0.1)} for level in ("local", "global")]
    return pd.DataFrame(rows)


def test_all_claims_hold_where_they_are_true() -> None:
    found = analysis.gates(made())
    assert set(found.verdict) == {"holds"}
    slower = found[found.claim == "repetition slows the fading of patterns"]
    assert slower["mean"].to_numpy() == pytest.approx(0.95**4 - 0.9**4, abs=0.03)


def test_an_onset_that_never_comes_leaves_its_claim_undefined() -> None:
    values = made()
    never = (values.what == "learning_onset") & (values.kind == "mislabelled") & (values.level == "global")
    values.loc[never & (values.seed == 2), "value"] = np.inf
    found = analysis.gates(values).set_index(["claim", "level"]).verdict
    assert found["wrong labels are learnt after ordinary digits", "global"] == "undefined"
    assert found["wrong labels are learnt after ordinary digits", "local"] == "holds"


def test_the_table_has_each_kind_and_time() -> None:
    found = analysis.table(made())
    left = found[(found.what == "left") & (found.batches == "per_run") & (found.kind == "once")]
    assert left.since.tolist() == [1, 2, 4, 8]
    assert left["mean"].to_numpy() == pytest.approx(0.9 ** left.since.to_numpy(), abs=0.02)
