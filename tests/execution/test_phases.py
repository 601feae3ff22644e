"""Tests of `fedmem/execution/phases.py`: phases that are trained, found again, damaged and interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmem.contracts.events import Event, ScenarioStarted
from fedmem.errors import RunError
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.memory_plan import needs_of
from fedmem.execution.phases import folder_before, models_before, phase_record
from fedmem.execution.run import folder_of, run
from fedmem.federation.build import build
from fedmem.results.read import Run, read, read_bank
from fedmem.scenario.scenario import Scenario
from fedmem.scenario.unfolding import last_phase
from tests.execution.sharding_helpers import Stopping, written
from tests.tiny import tiny

BASE: dict[str, Any] = {
    "rounds": 3,
    "injections": [{"kind": "mislabelled", "per_client": 2}, {"kind": "typical", "per_client": 2}],
    "estimators": [{"kind": "memorisation"}],
    "save": {"params": True},
}
FORGET = {"rounds": 2, "forget": {"kinds": ["mislabelled"]}}


def phased(*then: dict[str, Any], **changes: Any) -> Scenario:
    return last_phase(tiny(**{**BASE, "then": list(then), **changes}))


def trained(scenarios: Sequence[Scenario], out: Path) -> list[str]:
    """The ids of the scenarios that were trained, in their order."""
    heard: list[str] = []

    def listen(event: Event) -> None:
        heard.extend([event.id] if isinstance(event, ScenarioStarted) else [])

    for outcome in run_all(scenarios, out=out, jobs=1, listeners=[listen]):
        assert outcome.error is None
    return heard


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read(run(phased(FORGET), out=tmp_path_factory.mktemp("phases")))


def test_the_first_phase_gives_the_bytes_that_it_gives_alone(done: Run, tmp_path: Path) -> None:
    before = done.path.parent / str(done.manifest["phase"]["after"])
    assert written(run(tiny(**BASE), out=tmp_path)) == written(before)


def test_a_phase_starts_from_the_final_models(done: Run) -> None:
    scenario = phased(FORGET)
    before = folder_before(scenario, done.path.parents[1])
    assert before is not None
    first, second = read_bank(before), read_bank(done.path)
    ends = [e for e in first.evidence if (e.round, e.level, e.set) == (3, "global", "audit")]
    starts = [e for e in second.evidence if (e.round, e.level, e.set) == (0, "global", "audit")]
    assert np.array_equal(ends[0].margin, starts[0].margin)
    models = models_before(scenario, before)
    assert len(models) == scenario.runs
    name = next(iter(models[0]))
    assert not torch.equal(models[0][name], models[1][name])


def test_a_phase_is_recorded(done: Run) -> None:
    scenario = phased(FORGET)
    record = phase_record(scenario)
    assert record == done.manifest["phase"]
    assert scenario.previous is not None
    forget = {"kinds": ["mislabelled"], "clients": []}
    assert record == {"phase": 1, "name": None, "after": scenario.previous.id, "forget": forget}
    assert any("does not train on mislabelled any more" in text for text in done.manifest["warnings"])
    assert phase_record(tiny()) is None


def test_whole_batches_go_on_as_if_nothing_had_ended(tmp_path: Path) -> None:
    """Full-batch steps and FedAvg have no draws and no state, so that 3 and 2 rounds are 5."""
    client = {"kind": "sgd", "lr": 0.1, "batch_size": 10_000}
    parts = {"client": client, "sampler": {"kind": "everyone"}}
    two = read(run(phased({"rounds": 2}, **parts), out=tmp_path))
    one = read(run(tiny(**{**BASE, "rounds": 5, **parts}), out=tmp_path))
    a, b = (
        [e.margin for e in read_bank(each.path).evidence if (e.level, e.set, e.round) == ("global", "test", last)]
        for each, last in ((two, 2), (one, 5))
    )
    assert np.allclose(a[0], b[0], atol=1e-4)
    assert not np.allclose(a[0], read_bank(two.path).evidence[1].margin, atol=1e-4)


def test_a_shared_beginning_is_trained_once(tmp_path: Path) -> None:
    scenarios = [phased(FORGET), phased({"rounds": 2}), phased({"rounds": 1}, seed=5)]
    ids = trained(scenarios, tmp_path)
    firsts = [scenario.phases[0].id for scenario in scenarios]
    assert firsts[0] == firsts[1] != firsts[2]
    assert sorted(ids) == sorted({*firsts, *(scenario.id for scenario in scenarios)})
    assert trained(scenarios, tmp_path) == []


def test_together_they_give_what_each_gives_alone(tmp_path: Path) -> None:
    scenarios = [phased(FORGET), phased({"rounds": 2})]
    trained(scenarios, tmp_path / "together")
    for scenario in scenarios:
        alone = written(run(scenario, out=tmp_path / "alone"))
        assert written(folder_of(scenario, tmp_path / "together")) == alone


def test_shards_of_a_phase_give_its_bytes(done: Run, tmp_path: Path) -> None:
    assert written(run(phased(FORGET, speed={"shard": 2}), out=tmp_path)) == written(done.path)


def test_an_interrupted_phase_goes_on(done: Run, tmp_path: Path) -> None:
    scenario = phased(FORGET, speed={"shard": 2, "workers": 1})
    stopping = Stopping(after=2 * 3 + 2)  # both shards of the first phase, one of the second
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path, listeners=[stopping])
    assert len(list((tmp_path / scenario.name).glob("*/manifest.json"))) == 1, "the first phase is finished"
    again = Stopping()
    assert written(run(scenario, out=tmp_path, listeners=[again])) == written(done.path)
    assert len(again.shares) == 2, "one shard of two rounds was missing"


def test_the_plan_counts_a_model_for_each_run() -> None:
    scenario = phased(FORGET)
    federation = build(scenario)
    size = sum(value.numel() * value.element_size() for value in federation.initial.values())
    first, second = (needs_of(phase, federation, 3).data for phase in scenario.phases)
    assert second - first == size * scenario.runs


def test_damaged_models_are_refused(tmp_path: Path) -> None:
    scenario = phased(FORGET)
    assert scenario.previous is not None
    file = run(scenario.previous, out=tmp_path) / "params.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"params\.safetensors"):
        run(scenario, out=tmp_path)
    assert not folder_of(scenario, tmp_path).exists()


def test_a_phase_that_cannot_begin_takes_no_other_with_it(tmp_path: Path) -> None:
    broken = phased(FORGET, strategy={"kind": "tests.execution.many_scenarios_helpers:Breaking"})
    first, second = run_all([broken, phased({"rounds": 1})], out=tmp_path, jobs=1)
    assert "broken" in str(first.error)
    assert second.error is None


@pytest.mark.parametrize(("levels", "n"), [(["local", "global"], 8), (["global"], 10)])
def test_summary_says_that_it_leaves_absent_owners_out(levels: list[str], n: int, tmp_path: Path) -> None:
    """They are the ones that are forgotten: without local models, the summary has what is left of them."""
    then = {"rounds": 1, "forget": {"clients": [1]}, "observe": {"every": 1, "levels": levels}}
    ended = read(run(phased(then, sampler={"kind": "everyone"}), out=tmp_path))
    table = ended.measurements
    is_read = (table["scope"] == "summary") & (table["metric"] == "memorisation") & (table["level"] == "global")
    found = set(table.loc[is_read & (table["subject"] == "mislabelled"), "n"])
    assert found == {n}
    assert any("leaves out 4 examples of client 1" in text for text in ended.manifest["warnings"]) == (n == 8)


def test_retraining_distance_compares_with_the_model_before(tmp_path: Path) -> None:
    """Held-out rows: the second training is that of clients that took no part in the first."""
    others = {
        "rounds": 2,
        "forget": {"kinds": ["mislabelled", "typical"]},
        "sampler": {"kind": "listed", "clients": [3, 4]},
        "signals": [{"kind": "probabilities", "levels": ["global"]}, {"kind": "retraining_distance"}],
    }
    found = read_bank(run(phased(others, sampler={"kind": "listed", "clients": [0, 1, 2]}), out=tmp_path))
    stored = {(block.name, block.round): block.values for block in found.signals}
    number = sum(name.startswith("probability.") for name, at in stored if at == 2)
    p, q = (np.stack([np.float64(stored[f"probability.{c}", at]) for c in range(number)], axis=-1) for at in (0, 2))
    np.testing.assert_allclose(stored["retraining_distance", 2], (p * np.log(p / q)).sum(axis=-1), rtol=1e-6)
    assert (stored["retraining_distance", 2] > 0).all()
