"""Tests of `fedmem/execution/relearning.py`: forgotten examples are trained on again, in every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmem.execution.measuring import measure
from fedmem.execution.run import folder_of, run
from fedmem.federation.build import build
from fedmem.results.read import read, read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.unfolding import last_phase
from tests.execution.sharding_helpers import written
from tests.tiny import tiny

BASE: dict[str, Any] = {
    "runs": 16,
    "rounds": 2,
    "injections": [
        {"kind": "mislabelled", "label": "forget", "clients": [1], "per_client": 4, "included": "together"},
        {"kind": "typical", "per_client": 1},
    ],
    "sampler": {"kind": "everyone"},
    "observe": {"every": 1},
    "save": {"params": True},
    "probes": [],
    "estimators": [{"kind": "memorisation"}],
}


def scenario(unlearner: dict[str, Any] | None = None, **changes: Any) -> Scenario:
    forget = {"rounds": 1, "forget": {"kinds": ["forget"]}}
    forget |= {} if unlearner is None else {"unlearner": unlearner}
    relearn = {"rounds": 2, "relearn": {"kinds": ["forget"]}, "estimators": [{"kind": "relearning"}]}
    return last_phase(tiny(**{**BASE, "then": [forget, relearn], **changes}))


@pytest.mark.parametrize("exclusion", ["replace", "remove"])
def test_every_run_trains_on_what_is_learnt_again(exclusion: str) -> None:
    again = scenario(exclusion=exclusion)
    assert again.previous is not None
    assert again.previous.previous is not None
    first, gone, now = (build(each) for each in (again.previous.previous, again.previous, again))
    rows = now.trained_rows[(now.audit.kind == "forget")[now.audit.subject]]
    for number in range(now.audit.runs):
        is_in = bool(now.audit.is_in[number, now.audit.kind == "forget"][0])
        held = [np.isin(rows, each.rows(number, 1, 1)) for each in (first, gone, now)]
        assert [each.all() for each in held] == [is_in, False, True]
        assert [each.any() for each in held] == [is_in, False, True]
        assert len(now.rows(number, 1, 2)) == now.sizes_of(np.array([number]), np.array([1]), 2)[0]
        assert np.array_equal(now.rows(number, 1, 1), now.rows_of(np.array([number]), np.array([1]), 1)[0])
        assert np.array_equal(now.rows(number, 0, 1), gone.rows(number, 0, 1)), "other clients are as before"
    assert np.array_equal(now.audit.is_in, first.audit.is_in)


@pytest.mark.slow
@pytest.mark.parametrize("unlearner", [None, {"kind": "fine_tune"}])
def test_models_from_before_forgetting_are_remembered(tmp_path: Path, unlearner: dict[str, Any] | None) -> None:
    again = scenario(unlearner)
    folder = run(again, out=tmp_path)
    assert again.previous is not None
    assert again.previous.previous is not None
    trained = [one for one in read_bank(folder).evidence if one.set == "audit_trained"]
    first = [one for one in read_bank(folder_of(again.previous.previous, tmp_path)).evidence if one.level == "global"]
    last = next(one for one in first if one.round == 2 and one.set == "audit")
    assert len(trained) == 1
    assert np.array_equal(trained[0].margin, last.margin)
    audit = read_bank(folder).audit
    assert audit.relearnt is not None
    assert audit.relearnt.tolist() == (audit.kind == "forget").tolist()
    found = {row.reading.metric for row in read(folder).rows()}
    assert {"relearning_time", "relearning_lead", "relearning_gain"} <= found
    before = written(folder)
    measure(folder)
    assert written(folder)["measurements.parquet"] == before["measurements.parquet"]


@pytest.mark.slow
def test_shards_give_the_same_bytes(tmp_path: Path) -> None:
    speeds: dict[str, dict[str, Any]] = {"one": {}, "two": {"speed": {"shard": 5, "workers": 1}}}
    one, two = (written(run(scenario(**change), out=tmp_path / name)) for name, change in speeds.items())
    assert one["evidence.parquet"] == two["evidence.parquet"]
    assert one["measurements.parquet"] == two["measurements.parquet"]
