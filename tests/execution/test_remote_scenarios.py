"""Tests of `fedmem/execution/remote_scenarios.py`, with workers in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.contracts.events import Event, ScenarioFailed, ScenarioFinished
from fedmem.execution import remote_scenarios
from fedmem.execution.archives import pack
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.shard_lock import claim
from tests.execution.backends.backend_helpers import Here, small, tables


@pytest.fixture(autouse=True)
def workers_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("many_scenarios", "run"):
        monkeypatch.setattr(f"fedmem.execution.{module}.backend_for", lambda _, on: Here() if on else None)


def test_scenarios_of_workers_are_what_each_is_alone(tmp_path: Path) -> None:
    """Also one with a phase, which starts from what is sent."""
    phase = [{"rounds": 2, "forget": {"kinds": ["typical"]}}]
    scenarios = [small(runs=4, seed=1), small(runs=4, seed=2), small(runs=4, then=phase)]
    events: list[Event] = []
    there = run_all(scenarios, out=tmp_path / "there", listeners=[events.append], on="here")
    here = run_all(scenarios, out=tmp_path / "here")
    assert [outcome.error for outcome in there] == [None] * 3
    assert [tables(outcome.folder) for outcome in there] == [tables(outcome.folder) for outcome in here]
    assert sum(isinstance(event, ScenarioFinished) for event in events) >= 3
    assert not list((tmp_path / "there").rglob(".*.shards"))
    again = run_all(scenarios, out=tmp_path / "there", on="here")
    assert all(outcome.was_finished for outcome in again)


def test_damage_on_the_way_is_the_failure_of_its_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def damaged(folder: Path) -> bytes:
        packed = pack(folder)
        sizes.append(len(packed))
        return packed[:1000] if len(sizes) == 1 else packed

    monkeypatch.setattr(remote_scenarios, "pack", damaged)
    events: list[Event] = []
    first, second = run_all(
        [small(runs=4, seed=1), small(runs=4, seed=2)], out=tmp_path, listeners=[events.append], on="here"
    )
    assert "arrived damaged" in str(first.error)
    assert second.error is None
    assert not first.folder.exists()
    assert sum(isinstance(event, ScenarioFailed) for event in events) == 1


def test_what_another_process_runs_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_scenarios, "PATIENCE_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)  # the worker, which is this process, goes there as well
    told: list[int] = []
    scenario = small(runs=4)
    pool = remote_scenarios.ScenarioPool(
        lambda receive: Here().pool(
            remote_scenarios.BankSetup(folder=str(tmp_path)), receive, workers=1, threads=1, gpu=False
        ),
        {0: scenario},
        [tmp_path / "runs" / "tiny" / scenario.id],
        force=False,
        receive=lambda *_: None,
        ended=lambda *_: None,
        busy=told.append,
    )
    with claim(tmp_path / "runs" / "tiny" / scenario.id), pool as working:
        working.start("scenarios 1", (0,))
        assert working.wait_for_one() == ("scenarios 1", None)
    assert told == [0]
    assert not list(tmp_path.rglob("manifest.json"))
