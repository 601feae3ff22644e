"""Tests of `fedmem/execution/replay_plan.py`: planned replays against those of a run."""

from __future__ import annotations

from typing import Any

import pytest

from fedmem.cli.plan_text import check_file, plan_text
from fedmem.execution import replay_plan
from fedmem.execution.bank import simulate
from fedmem.execution.plan import plan
from fedmem.federation.build import build
from fedmem.observation import replays
from fedmem.observation.replays import Replays
from tests.tiny import tiny

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "few examples": {"probes": [{"kind": "leave_one_out", "max_examples": 1}]},
    "some rounds": {"probes": [{"kind": "leave_one_out", "rounds": [4]}, {"kind": "leave_one_out", "every": 4}]},
    "own roster": {"roster": "per_run"},
    "clients left out": {"leave_out": {"clients": "all"}},
    "windows": {"injections": [{"kind": "typical", "start": 2, "stop": 3}], "exclusion": "remove"},
    "local only": {"observe": {"levels": ["local"], "rounds": [1]}},
    "no such probe": {"probes": [{"kind": "utility"}]},
}


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trainings were really repeated, portion by portion."""
    counts: list[int] = []
    whole: Any = vars(replays)["replayed_work"]

    def spy(work: Any, places: Any, changes: Any, rows: int) -> Any:
        counts.append(len(changes))
        return whole(work, places, changes, rows)

    monkeypatch.setattr(replays, "replayed_work", spy)
    return counts


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_planned_replays_are_those_of_the_run(replayed: list[int], changes: dict[str, Any]) -> None:
    scenario = tiny(**{"probes": [{"kind": "leave_one_out"}], **changes})
    planned = plan(scenario)
    assert not replayed, "planning trains nothing"
    simulate(scenario, build(scenario))
    assert planned.replays == sum(replayed)
    assert (planned.replays > 0) == (changes.get("probes") != [{"kind": "utility"}])


def test_what_cannot_be_remembered_is_repeated_at_each_level(
    replayed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = tiny(probes=[{"kind": "leave_one_out"}])
    once = plan(scenario).replays
    for module in (replays, replay_plan):
        monkeypatch.setattr(module, "REMEMBERED", 0)
    assert plan(scenario).replays == 2 * once
    simulate(scenario, build(scenario))
    assert sum(replayed) == 2 * once


def test_fedmem_check_prints_them(tmp_path: Any) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "{name: one, runs: 2, rounds: 1, clients: 2, dataset: {kind: synthetic, rows: 200, test: 50}, population: 0, "
        "model: {kind: logistic}, injections: [{kind: typical, per_client: 2}], sampler: {kind: everyone}, "
        "probes: [{kind: leave_one_out}]}"
    )
    lines = plan_text(check_file(file))
    assert "replays    at most 4 local trainings repeated by probes, which add 100 % to those of the runs" in lines


def test_outcomes_are_forgotten_with_their_round() -> None:
    kept: list[int] = []
    forget = Replays.forget

    def spy(self: Replays) -> None:
        kept.append(len(self._outcomes))
        forget(self)
        assert not self._outcomes
        assert self._remembered == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replays, "forget", spy)
        scenario = tiny(probes=[{"kind": "leave_one_out"}])
        simulate(scenario, build(scenario))
    assert len(kept) == 3, "the two observed rounds and the initial models"
    assert kept[-1] > 0
