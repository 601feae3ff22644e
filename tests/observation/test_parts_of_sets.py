"""The test set and the population at some levels, rows and precisions: equal to the whole where both are stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmem
from fedmem.contracts.evidence import Evidence
from fedmem.errors import ScenarioError
from fedmem.execution import shard_store
from fedmem.execution.bank import simulate
from fedmem.execution.run import run
from fedmem.federation.build import build
from fedmem.modalities.scores import losses_of_stored, round_margins
from tests.execution.sharding_helpers import Stopping, written
from tests.tiny import tiny

BASE: dict[str, Any] = {
    "rounds": 2,
    "injections": [{"kind": "random_pattern", "per_client": 1}, {"kind": "typical", "per_client": 1}],
    "probes": [{"kind": "utility"}],
    "references": 20,
}


def evidence(test: dict[str, Any] | None = None, population: dict[str, Any] | None = None) -> dict[Any, Evidence]:
    """The blocks of a bank, by round, level and set."""
    scenario = tiny(**BASE, observe={"every": 1, "test": test or {}, "population": population or {}})
    bank = simulate(scenario, build(scenario)).bank
    assert len(bank.targets["test"]) == (test or {}).get("rows", 100)
    return {(block.round, block.level, block.set): block for block in bank.evidence}


@pytest.fixture(scope="module")
def whole() -> dict[Any, Evidence]:
    return evidence()


def same(one: Evidence, two: Evidence) -> bool:
    names = ("run", "client", "loss", "margin", "correct")
    return all(getattr(one, name).tobytes() == getattr(two, name).tobytes() for name in names)


@pytest.mark.parametrize("name", ["test", "population"])
@pytest.mark.parametrize("level", ["local", "global"])
def test_set_at_one_level_is_that_of_all_levels(whole: dict[Any, Evidence], name: str, level: str) -> None:
    part = evidence(**{name: {"levels": [level]}})
    assert set(whole) - set(part) == {key for key in whole if key[2] == name and key[1] != level}
    assert len(part) < len(whole)
    assert all(same(block, whole[key]) for key, block in part.items())


def test_some_rows_are_the_same_everywhere_and_as_in_the_whole(whole: dict[Any, Evidence]) -> None:
    part = evidence(test={"rows": 30})
    rows = part[1, "global", "test"].rows
    assert rows is not None
    assert len(np.unique(rows)) == 30
    assert rows.tolist() == sorted(rows.tolist())
    assert rows.max() < 100
    for key, block in part.items():
        if key[2] != "test":
            assert same(block, whole[key])
            assert block.rows is None
            continue
        assert block.rows is not None
        assert block.rows.tolist() == rows.tolist()
        np.testing.assert_allclose(block.margin, whole[key].margin[:, rows], rtol=1e-5, atol=1e-6)
        assert (block.correct == whole[key].correct[:, rows]).mean() > 0.99


def test_the_seed_draws_the_rows() -> None:
    drawn = [build(tiny(seed=seed, observe={"test": {"rows": 30}})).test_rows for seed in (1, 1, 2)]
    first, again, other = ([] if rows is None else rows.tolist() for rows in drawn)
    assert first == again != other
    scenario = tiny(observe={"test": {"rows": 100}})
    assert build(scenario).test_rows is None, "all rows are no part"


def test_more_rows_than_there_are_is_an_error() -> None:
    scenario = tiny(observe={"test": {"rows": 101}})
    with pytest.raises(ScenarioError) as caught:
        build(scenario)
    [problem] = caught.value.problems
    assert problem.path == "observe.test.rows"
    assert problem.message == "the test set has 100 rows, so 101 cannot be drawn; use at most 100, or leave it out"


def test_rounded_margins_change_nothing_else(whole: dict[Any, Evidence]) -> None:
    part = evidence(test={"precision": "float32"})
    for key, block in part.items():
        if key[2] != "test":
            assert same(block, whole[key]), "audit examples stay in float64"
            continue
        assert block.margin.dtype == block.loss.dtype == np.float32
        assert block.margin.tobytes() == round_margins(whole[key].margin).tobytes()
        assert block.loss.tobytes() == losses_of_stored(block.margin).tobytes()
        assert block.correct.tobytes() == whole[key].correct.tobytes()


SMALL_SETS = {"every": 1, "test": {"levels": ["global"], "rows": 40, "precision": "float32"}}


@pytest.mark.slow
def test_stored_sets_give_the_same_bytes_in_shards_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BASE | {"estimators": [{"kind": "unique_information"}], "observe": SMALL_SETS}
    one = run(tiny(**settings), out=tmp_path / "one")
    monkeypatch.setattr(shard_store, "IN_MEMORY", 0)
    scenario = tiny(**settings, speed={"shard": 2, "workers": 1})
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path / "two", listeners=[Stopping(after=2)])
    two = run(scenario, out=tmp_path / "two")
    assert fedmem.read(two).manifest["shards"]["resumed"] == 1
    assert written(one) == written(two)
    monkeypatch.setattr("fedmem.results.evidence_table.IN_MEMORY", 0)
    assert fedmem.measure(two) == two
    assert written(one) == written(two)
    frame = fedmem.read(two).evidence
    of_test = frame[frame["set"] == "test"]
    assert set(of_test["level"]) == {"global"}
    assert of_test["subject"].nunique() == 40
    assert of_test["subject"].max() > 40, "the number of the row in the test set"
    assert not frame["loss"].isna().any()
    learning = {entry["level"]: (entry["on"], entry["examples"]) for entry in fedmem.read(two).manifest["learning"]}
    assert learning == {"local": ("population", 20), "global": ("test", 40)}
