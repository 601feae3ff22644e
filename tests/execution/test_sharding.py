"""A bank in shards: the same bytes as in one, whoever trained them and however often they were interrupted."""

from __future__ import annotations

import hashlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fedmem
from fedmem.clients.sgd import Sgd
from fedmem.contracts.client import Outcome
from fedmem.contracts.events import Event
from fedmem.contracts.evidence import Lost
from fedmem.errors import ComponentError, RunError
from fedmem.execution import sharding
from fedmem.execution.run import run
from fedmem.execution.shard_store import Shards, kept_runs, place_of
from fedmem.processes import Report, can_fork
from fedmem.scenario.scenario import Scenario
from fedmem.training.one_by_one import OneByOne
from fedmem.training.stacked import Work
from tests.execution.sharding_helpers import SMALL, Stopping, needs_forks, written
from tests.tiny import tiny

MEASURED: dict[str, Any] = {
    "dataset": {"kind": "synthetic", "rows": 250, "test": 50},
    "probes": [
        {"kind": "utility"},
        {"kind": "client_gap"},
        {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 2}, "victims": 1, "rounds": [2]},
    ],
    "estimators": [{"kind": "memorisation"}, {"kind": "exposure"}],
    "save": {"params": True},
}


def small(**speed: Any) -> Scenario:
    return tiny(**SMALL, speed=speed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one shard."""
    return run(small(), out=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In one shard, with all that may be measured."""
    return run(tiny(**SMALL | MEASURED), out=tmp_path_factory.mktemp("measured"))


@pytest.mark.parametrize(
    ("speed", "sizes", "workers"),
    [
        ({"shard": 1, "workers": 1}, [1, 1, 1, 1], 1),
        ({"shard": 3, "workers": 1}, [2, 2], 1),
        pytest.param({"shard": 2, "workers": 2}, [2, 2], 2, marks=needs_forks),
        pytest.param({"shard": 1, "workers": 3}, [1, 1, 1, 1], 3, marks=needs_forks),
    ],
)
def test_shards_and_workers_do_not_change_a_run(
    speed: dict[str, int], sizes: list[int], workers: int, measured: Path, tmp_path: Path
) -> None:
    progress = Stopping()
    folder = run(tiny(**SMALL | MEASURED, speed=speed), out=tmp_path, listeners=[progress])
    assert written(folder) == written(measured)
    assert len(written(measured)) == 8, "pictures among them"
    assert fedmem.read(folder).manifest["shards"] == {"runs": sizes, "resumed": 0, "workers": workers}
    assert fedmem.read(measured).manifest["shards"] == {"runs": [4], "resumed": 0, "workers": 1}
    assert list(folder.parent.iterdir()) == [folder], "the shards are gone"
    assert progress.total == 2 * len(sizes)
    steps = [step / progress.total for step in range(1, progress.total + 1)]
    assert progress.shares == pytest.approx(steps), "every round of every shard, added up"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=needs_forks)])
def test_interrupted_run_continues_from_the_last_stored_shard(workers: int, whole: Path, tmp_path: Path) -> None:
    scenario = small(shard=1, workers=workers)
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=tmp_path, listeners=[Stopping(after=6)])
    folder = tmp_path / scenario.name / scenario.id
    kept = kept_runs(folder)
    assert 0 < kept < 4
    assert not folder.exists()
    again = Stopping()
    run(scenario, out=tmp_path, listeners=[again])
    assert written(folder) == written(whole)
    assert fedmem.read(folder).manifest["shards"]["resumed"] == kept
    assert again.total == 2 * (4 - kept)
    at_once = ", 2 at once" if workers == 2 and kept < 3 else ""
    count = {one: f"{one} run{'s' * (one > 1)}" for one in (1, 2, 3)}
    shards = count[4 - kept].replace("run", "shard")
    assert again.said[0] == f"{count[kept]} stored already; training {count[4 - kept]} in {shards}{at_once}"


def test_stored_runs_are_used_in_any_division_of_the_rest(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(small(shard=1, workers=1), out=tmp_path, listeners=[Stopping(after=2)])
    folder = run(small(shard=16, workers=1), out=tmp_path)
    assert written(folder) == written(whole)
    assert fedmem.read(folder).manifest["shards"] == {"runs": [1, 3], "resumed": 1, "workers": 1}


def test_with_force_nothing_is_used(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(small(shard=1, workers=1), out=tmp_path, listeners=[Stopping(after=4)])
    folder = run(small(shard=1, workers=1), out=tmp_path, force=True)
    assert fedmem.read(folder).manifest["shards"]["resumed"] == 0


def test_damaged_shard_is_trained_again(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(small(shard=1, workers=1), out=tmp_path, listeners=[Stopping(after=4)])
    (evidence,) = tmp_path.rglob("runs-1-1/evidence.parquet")
    data = bytearray(evidence.read_bytes())
    data[len(data) // 2] ^= 1
    evidence.write_bytes(data)
    progress = Stopping()
    folder = run(small(shard=1, workers=1), out=tmp_path, listeners=[progress])
    assert progress.said[:2] == [
        "training run 1 again: evidence.parquet is damaged",
        "1 run stored already; training 3 runs in 3 shards",
    ]
    assert written(folder) == written(whole)


@pytest.mark.parametrize(
    ("what", "where", "value"),
    [
        ("code of fedmem", "code", lambda: "another"),
        ("version of torch", "versions", lambda engine: {"torch": "1.0"}),
        ("code of utility", "components_of", lambda scenario: {"utility": "another"}),
        ("data", "digest", lambda federation: "another"),
    ],
)
def test_shards_of_other_code_and_data_are_not_used(
    what: str, where: str, value: Callable[..., Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, where, value)
    with pytest.raises(KeyboardInterrupt):
        run(small(shard=2, workers=1), out=tmp_path, listeners=[Stopping(after=3)])
    monkeypatch.undo()
    progress = Stopping()
    folder = run(small(shard=2, workers=1), out=tmp_path, listeners=[progress])
    assert re.match(rf"training runs 0 to 1 again: .* made with another .*\b{what}\b", progress.said[0])
    assert fedmem.read(folder).manifest["shards"]["resumed"] == 0
    assert written(folder) == written(whole)


def test_shards_of_another_executor_are_refused_and_workers_not(tmp_path: Path) -> None:
    def stopped(**speed: Any) -> Stopping:
        progress = Stopping(after=3)
        with pytest.raises(KeyboardInterrupt):
            run(small(shard=2, **speed), out=tmp_path, listeners=[progress])
        return progress

    stopped(workers=1, executor="stacked")
    assert "another settings of speed" in stopped(workers=1, executor="one_by_one").said[0]
    progress = Stopping()
    run(small(shard=2, workers=3, executor="one_by_one", memory=8.0), out=tmp_path, listeners=[progress])
    assert progress.said[0] == "2 runs stored already; training 2 runs in 1 shard"


def test_shards_that_a_finished_run_left_behind_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was killed after its folder had appeared."""
    with monkeypatch.context() as patch:
        patch.setattr("fedmem.execution.shard_store.shutil.rmtree", lambda *_, **__: None)
        folder = run(small(shard=2, workers=1), out=tmp_path)
    assert place_of(folder).exists()
    assert run(small(shard=2), out=tmp_path) == folder
    assert not place_of(folder).exists()


# --- processes that fail ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Doomed(Sgd):
    """Something happens to a process that trains, unless it is this one."""

    how: str

    def init(self, before: Any, offer: Any, memory: Any) -> Any:
        if os.getpid() != TESTING:
            if self.how == "exit":
                os._exit(7)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().init(before, offer, memory)


TESTING = os.getpid()


@needs_forks
@pytest.mark.parametrize(
    ("how", "said"),
    [("exit", "ended with status 7"), ("kill", r"was ended by signal 9 \(Killed\)")],
)
def test_dying_worker_ends_the_run_with_its_runs_and_status(how: str, said: str, tmp_path: Path) -> None:
    scenario = tiny(client={"kind": f"{__name__}:Doomed", "how": how}, speed={"shard": 2, "workers": 2})
    with pytest.raises(RunError, match=rf"the process that trained runs \d to \d {said} before it was done"):
        run(scenario, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, kw_only=True)
class Raising:
    """A probe that raises in a run. Fields: `run`, `error`."""

    run: int
    error: str
    every: int | None = None
    levels: tuple[str, ...] = ("global",)

    def observe(self, transitions: Any, context: Any) -> Any:
        if transitions[0].round == 2 and any(t.run == self.run for t in transitions):
            raise ComponentError("probes[0].run", self.error)
        return []

    def summarise(self, measurements: Any, seed: int) -> Any:
        return []


@needs_forks
def test_error_from_another_process_is_equal_and_work_is_kept(tmp_path: Path) -> None:
    probes = [{"kind": f"{__name__}:Raising", "run": 2, "error": "not this one"}]
    said = []
    for workers in (1, 2):
        scenario = tiny(rounds=2, probes=probes, speed={"shard": 1, "workers": workers})
        with pytest.raises(RunError) as caught:
            run(scenario, out=tmp_path / str(workers))
        said.append(str(caught.value))
        assert kept_runs(tmp_path / str(workers) / "tiny" / scenario.id) >= 1
    assert said[0] == said[1]
    assert "round 2, level global: probe" in said[0]
    assert "failed in observe: ComponentError: probes[0].run: not this one" in said[0]


# --- clients that fail in some runs -----------------------------------------------------------------------------------


@contextmanager
def failing(when: Callable[[Work], bool]) -> Iterator[list[tuple[range, Lost]]]:
    """Clients fail at some tasks; gives the shards that are trained, each with who was known to fail."""
    trained: list[tuple[range, Lost]] = []
    client_of = OneByOne._client_of

    def attempt(self: OneByOne, work: Work, i: int) -> tuple[Outcome, float]:
        if when(work.take([i])):
            raise ConnectionError("nobody there")
        return client_of(self, work, i)

    class Counted(sharding.ShardTrainer):
        def __call__(self, job: tuple[range, Lost], report: Report[Event], shards: Shards) -> Lost:
            trained.append(job)
            return super().__call__(job, report, shards)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneByOne, "_client_of", attempt)
        patch.setattr(sharding, "ShardTrainer", Counted)
        yield trained


def capricious(work: Work) -> bool:
    """By every digit of the model and by the coins, so that another history gives other failures.

    Two failures are fixed, in two rounds and in runs of two shards: digits differ between processors.
    """
    client = int(work.client[0])
    if (int(work.run[0]), work.round, client) in {(3, 1, 2), (0, 3, 1)}:
        return True
    values = [value.numpy().tobytes() for value in work.model_before(0).values()]
    digest = hashlib.sha256(b"".join([*values, work.rows[0].tobytes(), bytes([client])])).digest()
    return digest[0] < 8


def fragile(**speed: Any) -> Scenario:
    return tiny(
        seed=8, runs=4, rounds=3, sampler={"kind": "everyone"}, observe={"levels": ["global"]},
        tolerate={"max_failed_share": 0.9}, speed={"executor": "one_by_one", "workers": 1, **speed},
    )  # fmt: skip


@pytest.mark.parametrize("server", ["messages", pytest.param("rule", marks=pytest.mark.slow)])
def test_client_failing_in_one_shard_is_dropped_in_all(server: str, tmp_path: Path) -> None:
    with failing(capricious) as trained:
        together = run(fragile(server=server), out=tmp_path / "whole")
        failed = fedmem.read(together).participation.query("failed")
        assert failed["round"].nunique() > 1
        assert len(failed) % 4 == 0
        divided = run(fragile(server=server, shard=2), out=tmp_path / "divided")
        assert written(divided) == written(together)
        assert len(trained) > 2, "some had to be trained again"
        if can_fork():
            forked = run(fragile(server=server, shard=1, workers=2), out=tmp_path / "forked")
            assert written(forked) == written(together)


@pytest.mark.slow
def test_interrupted_it_goes_on_with_what_it_knew_to_fail(tmp_path: Path) -> None:
    """Between any two shards, those that were trained again included; the end is the same."""
    scenario = fragile(shard=1)
    with failing(capricious) as trained:
        together = run(fragile(), out=tmp_path / "whole")
        run(scenario, out=tmp_path / "at once")
        at_once = len(trained)
        trained.clear()
        attempts = 0
        folder = None
        while folder is None:
            attempts += 1
            with suppress(KeyboardInterrupt):
                folder = run(scenario, out=tmp_path / "parts", listeners=[Stopping(after=4)])
    assert attempts > 4
    assert len(trained) < 3 * at_once
    assert written(folder) == written(together)


def test_failure_file_is_restored_after_a_kill_before_its_write(tmp_path: Path) -> None:
    def interrupted(after: int) -> Path:
        with failing(lambda task: task.client == 1), pytest.raises(KeyboardInterrupt):
            run(scenario, out=tmp_path, listeners=[Stopping(after=after)])
        return place_of(tmp_path / scenario.name / scenario.id) / "lost.json"

    scenario = fragile(shard=2)
    told = interrupted(after=3)
    before = told.read_bytes()
    told.unlink()
    assert interrupted(after=0) == told
    assert told.read_bytes() == before


def test_client_failing_in_all_runs_costs_no_second_training(tmp_path: Path) -> None:
    with failing(lambda work: int(work.client[0]) == 1) as trained:
        folder = run(fragile(shard=2), out=tmp_path)
    places = [(round_number, 1) for round_number in range(1, 4)]
    assert [shard for shard, _ in trained] == [range(2), range(2, 4)]
    assert [sorted(known) for _, known in trained] == [[], places]
    failed = fedmem.read(folder).participation.query("failed")
    assert set(failed.client) == {1}
    assert len(failed) == 4 * 3


def test_own_rosters_do_not_share_failures(tmp_path: Path) -> None:
    scenarios = [tiny(**{**fragile(**speed).dump(), "roster": "per_run"}) for speed in ({}, {"shard": 2})]
    with failing(capricious) as trained:
        whole, parts = (run(scenario, out=tmp_path / str(i)) for i, scenario in enumerate(scenarios))
    assert written(whole) == written(parts)
    assert [known for _, known in trained] == [{}, {}]
    failed = fedmem.read(whole).participation.query("failed")
    assert 0 < failed.groupby(["round", "client"]).run.nunique().min() < 4


def test_too_many_failures_say_the_same_in_shards(tmp_path: Path) -> None:
    said = []
    for size in (4, 2):
        scenario = tiny(**{**fragile(shard=size).dump(), "tolerate": {"max_failed_share": 0.1}})
        with failing(lambda work: int(work.client[0]) == 1), pytest.raises(RunError) as caught:
            run(scenario, out=tmp_path / str(size))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "round 1: 1 of 5 clients failed, first client 1: ConnectionError: nobody there (in its work of" in said[0]
    assert "(in run 0)" in said[0]
