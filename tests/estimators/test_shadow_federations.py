"""Tests of `fedmem/estimators/shadow_federations.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.estimator import View
from fedmem.contracts.evidence import SignalEvidence
from fedmem.contracts.measurement import Level, Reading
from fedmem.errors import ScenarioError
from fedmem.estimators.shadow_federations import ShadowFederations
from fedmem.execution.run import run
from tests.estimators.update_helpers import update_view
from tests.tiny import tiny

M, EACH = 4, 6
CLASSES = np.tile(np.arange(M), EACH)


def view_of(features: FloatArray, level: Level = "local", **more: Any) -> View:
    """A view of models (S, R, N, d), whose run r has candidate CLASSES[r] of client 0."""
    view = update_view(features, np.eye(M, dtype=bool)[CLASSES], level=level, draws=0, owner=[0] * M, **more)
    test = view.sets["test"]
    signals = tuple(_renamed(block) for block in test.signals)
    inputs = np.random.default_rng(9).uniform(size=(M, 3))
    examples = replace(view.audit.examples, inputs=inputs)
    return replace(view, audit=replace(view.audit, examples=examples), sets={"test": replace(test, signals=signals)})


def _renamed(block: SignalEvidence) -> SignalEvidence:
    return replace(block, name=block.name.replace("update_feature", "weight_feature"))


def rows(view: View) -> dict[tuple[str, str], Reading]:
    """Readings by metric and whose model is read; gains are those over the mean."""
    readings = [reading for _, reading in ShadowFederations().tests(view)]
    return {(r.metric, r.labels.text("seen")): r for r in readings if r.labels.text("over") != "best"}


def toy(rng: np.random.Generator) -> FloatArray:
    """(1, R, 2, M): client 0 shows its candidate, and client 1 nothing."""
    features = rng.normal(size=(1, len(CLASSES), 2, M))
    features[0, :, 0] += 20 * np.eye(M)[CLASSES]
    return features


def test_the_victim_shows_its_row_and_another_client_nothing() -> None:
    found = rows(view_of(toy(np.random.default_rng(0))))
    own, other = found["shadow_identified", "owner"], found["shadow_identified", "another"]
    assert own.value == 1.0
    assert own.n == M * EACH
    assert other.low < 1 / M < other.high
    assert found["shadow_identified.null", "owner"].value == 1 / M
    assert found["shadow_gain", "owner"].n == M
    assert found["shadow_gain", "another"].value < 1


def test_the_aggregate_is_read_at_level_global() -> None:
    found = rows(view_of(toy(np.random.default_rng(1))[:, :, :1], level="global"))
    assert found["shadow_identified", "aggregate"].value == 1.0
    assert {seen for _, seen in found} == {"aggregate"}


def test_the_summary_reads_all_rounds_together() -> None:
    rng = np.random.default_rng(2)
    second, first = toy(rng), rng.normal(size=(1, len(CLASSES), 2, M))
    both = np.concatenate([first, second])
    assert rows(view_of(both, round_number=1))["shadow_identified", "owner"].value < 0.7
    assert rows(view_of(both))["shadow_identified", "owner"].value == 1.0


def test_models_that_diverged_do_not_count() -> None:
    features = toy(np.random.default_rng(3))
    features[0, :2, 0] = np.nan
    found = rows(view_of(features))
    assert found["shadow_identified", "owner"].n == M * EACH - 2
    features[:] = np.nan
    assert rows(view_of(features)) == {}


def scenario(**fields: Any) -> Any:
    return tiny(
        **{
            "runs": 8,
            "rounds": 1,
            "observe": {"every": 1},
            "injections": [{"kind": "random_pattern", "clients": [0], "per_client": 4}],
            "coins": {"law": "one_of"},
            "exclusion": "remove",
            "signals": [{"kind": "weight_features", "projections": 8}],
            "estimators": [{"kind": "shadow_federations"}],
            **fields,
        }
    )


def test_a_bank_with_known_batches_identifies_every_row(tmp_path: Path) -> None:
    table = pd.read_parquet(
        run(scenario(batches="shared", sampler={"kind": "everyone"}), out=tmp_path) / "measurements.parquet"
    )
    found = table[table.metric == "shadow_identified"]
    own = found[(found["seen"] == "owner")].value
    assert len(own)
    assert (own == 1.0).all()
    other = found[(found["seen"] == "another") & (found["round"] == 1)].value
    assert other.tolist() == [0.0], "models of other clients are the same in all runs, which ties"
    gain = table[(table.metric == "shadow_gain") & (table["seen"] == "another") & (table["round"] == 1)]
    assert gain[gain.over == "mean"].value.tolist() == [0.0]
    assert (gain[gain.over == "best"].value <= 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"exclusion": "replace"}, "exclusion: is replace"),
        ({"coins": {}, "exclusion": "replace"}, "by one_of, and not random inclusion by balanced"),
        ({"estimators": [{"kind": "memorisation"}]}, "not random inclusion by one_of"),
        ({"signals": []}, "weight_feature"),
    ],
)
def test_wrong_scenarios_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        scenario(**fields)
