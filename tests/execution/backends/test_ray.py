"""Tests of `fedmem/execution/backends/ray.py`, on real clusters of several nodes on this machine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.events import Event, RoundFinished, ShardStarted, ShardStored
from fedmem.errors import ComponentError, RunError
from fedmem.execution import many_scenarios
from fedmem.execution.many_scenarios import run_all
from fedmem.execution.run import run
from fedmem.execution.shard_store import kept_runs
from fedmem.results.read import read
from fedmem.scenario.loading import parse_scenario
from fedmem.studies.compare import compare
from fedmem.studies.sweep import sweep
from tests.execution.backends.backend_helpers import small, tables
from tests.execution.backends.conftest import start_cluster

pytestmark = pytest.mark.slow
nightly = pytest.mark.nightly


def actors() -> list[int]:
    """The processes of workers on this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = place.read_bytes()
        except OSError:
            continue
        if text.startswith(b"ray::_Actor"):
            found.append(int(place.parent.name))
    return found


def wait_for_end() -> None:
    """Returns when no worker is left."""
    until = time.monotonic() + 60
    while actors():
        assert time.monotonic() < until, "workers are left"
        time.sleep(0.1)


def once(kind: type[Event], act: Callable[[], object], *, after: int = 0) -> Callable[[Event], None]:
    """A listener that acts at one event of a kind."""
    seen: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, kind):
            seen.append(event)
            if len(seen) == after + 1:
                act()

    return listen


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others must equal."""
    return run(small(), out=tmp_path_factory.mktemp("alone"))


def test_shards_on_two_nodes_give_the_same_bytes(alone: Path, ray_address: str, tmp_path: Path) -> None:
    events: list[Event] = []
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    folder = run(small(), out=tmp_path, listeners=[events.append], on=ray_address)
    assert tables(folder) == tables(alone)
    assert sum(isinstance(event, RoundFinished) for event in events) == 2 * 3, "events arrive from both"
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == (before, handler)
    wait_for_end()


@nightly
def test_a_killed_worker_is_replaced(alone: Path, ray_address: str, tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(actors()[0], signal.SIGKILL)

    folder = run(small(), out=tmp_path, listeners=[once(ShardStarted, kill)], on=ray_address)
    assert tables(folder) == tables(alone)


def test_a_killed_node_is_done_without(alone: Path, tmp_path: Path) -> None:
    cluster = start_cluster(2)
    try:
        node = next(iter(cluster.worker_nodes))
        listener = once(RoundFinished, lambda: cluster.remove_node(node, allow_graceful=False))
        folder = run(small(), out=tmp_path, listeners=[listener], on=f"ray:{cluster.address}")
    finally:
        cluster.shutdown()
    assert tables(folder) == tables(alone)


@nightly
@pytest.mark.parametrize("number", range(20))
def test_nodes_killed_at_random_times_change_nothing(number: int, alone: Path, tmp_path: Path) -> None:
    delay = random.Random(number).uniform(0.0, 8.0)
    cluster = start_cluster(2)
    timer = threading.Timer(delay, lambda: cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False))
    timer.start()
    try:
        folder = run(small(), out=tmp_path, on=f"ray:{cluster.address}")
    finally:
        timer.join()
        cluster.shutdown()
    assert tables(folder) == tables(alone)


@nightly
def test_a_killed_head_goes_on_from_its_disk(alone: Path, cluster: Any, ray_address: str, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from fedmem.execution.run import run; from fedmem.contracts.events import ShardStored;"
        "from tests.execution.backends.backend_helpers import small;"
        "end = lambda event: isinstance(event, ShardStored) and os.kill(os.getpid(), signal.SIGKILL);"
        "run(small(), out=sys.argv[1], listeners=[end], on=sys.argv[2])"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path), ray_address], capture_output=True)
    assert died.returncode == -signal.SIGKILL
    wait_for_end()  # Ray ends the workers of a head that is gone
    events: list[Event] = []
    folder = run(small(), out=tmp_path, listeners=[events.append], on=ray_address)
    assert sum(isinstance(event, ShardStored) for event in events) == 1, "one of the two shards was there"
    assert tables(folder) == tables(alone)


CUT_OFF = """
import sys
from fedmem.cli.main import main
from fedmem.execution.backends import ray
ray.HEAD_SECONDS = float(sys.argv.pop(1))
main()
"""


@nightly
@pytest.mark.parametrize(("patience", "absence"), [(5.0, 60.0), (30.0, 4.0)], ids=["for good", "for a moment"])
def test_a_lost_network_costs_no_finished_shard(
    patience: float, absence: float, alone: Path, cluster: Any, ray_address: str, tmp_path: Path
) -> None:
    """Neither the head nor a worker says anything any more, and no connection is closed, as behind a cut cable."""
    (tmp_path / "tiny.yaml").write_text(small(speed={"shard": 1}).to_yaml())
    command = ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path), "--on", ray_address, "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", CUT_OFF, str(patience), *command], stderr=subprocess.PIPE, text=True
    )
    place = tmp_path / "tiny" / alone.name
    while not kept_runs(place):
        assert process.poll() is None
        time.sleep(0.01)
    silent = [cluster.head_node.all_processes["gcs_server"][0].process.pid, *actors()]
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        process.wait(timeout=absence)
    except subprocess.TimeoutExpired:
        assert absence < patience
    took = time.monotonic() - began
    for pid in silent:
        os.kill(pid, signal.SIGCONT)
    said = process.communicate(timeout=120)[1]
    if absence < patience:
        assert process.returncode == 0, said
    else:
        assert process.returncode == 1, said
        assert took < 4 * patience
        assert said.count("the head of the Ray cluster has not answered for 5 s") == 1
        assert "Traceback" not in said
        kept = kept_runs(place)
        assert f"kept {kept} of 8 runs; the same command continues" in said
        wait_for_end()
        run(small(speed={"shard": 1}), out=tmp_path, on=ray_address)
        assert read(place).manifest["shards"]["resumed"] == kept > 0
    assert tables(place) == tables(alone)
    wait_for_end()


@nightly
def test_compared_runs_are_those_of_one_machine(ray_address: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"vary": ["strategy.kind=fedavg,fedmedian"], "seeds": 2}
    here = compare(small(runs=4), out=tmp_path / "here", **settings)
    there = compare(small(runs=4), out=tmp_path / "there", on=ray_address, **settings)
    assert [tables(o.folder) for o in there.outcomes] == [tables(o.folder) for o in here.outcomes]
    for name in ("differences.csv", "comparison.csv"):
        if (here.path / name).is_file():
            assert (there.path / name).read_bytes() == (here.path / name).read_bytes()
    wait_for_end()


@nightly
def test_swept_runs_are_those_of_one_machine(ray_address: str, tmp_path: Path) -> None:
    axis = {"path": "client.lr", "values": [0.1, 0.2, 0.4]}
    (tmp_path / "base.yaml").write_text(small(runs=4).to_yaml())
    file = tmp_path / "rates.yaml"
    file.write_text(json.dumps({"name": "rates", "base": "base.yaml", "axes": [axis], "seeds": "0:2"}))
    here = sweep(file, out=tmp_path / "here")
    there = sweep(file, out=tmp_path / "there", on=ray_address)
    assert not there.failed
    assert there.results.equals(here.results)
    folders = sorted(path.parent for path in (tmp_path / "here" / "tiny").glob("[!.]*/manifest.json"))
    assert len(folders) == 6
    assert all(tables(folder) == tables(tmp_path / "there" / "tiny" / folder.name) for folder in folders)
    wait_for_end()


@nightly
def test_a_foreign_node_is_refused_by_name(ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmem.execution import sharding

    honest = sharding.made_without_data

    def changed(*given: Any, **named: Any) -> Mapping[str, str]:
        return {**honest(*given, **named), "processor": "x86_64 AVX1"}

    monkeypatch.setattr(sharding, "made_without_data", changed)
    with pytest.raises(RunError, match=f"the machine {os.uname().nodename} .*processor: .* there, x86_64 AVX1 here"):
        run(small(), out=tmp_path, on=ray_address)
    (outcome,) = run_all([small(runs=4)], out=tmp_path, on=ray_address)
    assert "would not give the same numbers" in str(outcome.error)
    assert not list(tmp_path.rglob("manifest.json"))


@nightly
def test_an_error_of_a_client_is_the_same_as_here(
    ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_client.py").write_text(
        "from dataclasses import dataclass\nfrom fedmem.clients.sgd import Sgd\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Failing(Sgd):\n"
        '    """Fails."""\n\n    def step(self, *args, **kwargs):\n        raise ZeroDivisionError("on purpose")\n'
    )
    monkeypatch.chdir(tmp_path)
    scenario = parse_scenario(small().to_yaml(), "own", ["client={kind: 'own_client:Failing', lr: 0.1}"])
    texts = []
    for on in ("forks", ray_address):
        with pytest.raises(RunError) as caught:
            run(scenario, out=tmp_path / on[:3], on=on)
        # whichever shard fails first
        texts.append(re.sub(r"in run \d", "in run 0", str(caught.value)))
    assert "on purpose" in texts[0]
    assert texts[0] == texts[1], texts


def test_an_address_where_nobody_answers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no cluster of Ray answers at 127.0.0.1:1 "):
        run(small(), out=tmp_path, on="ray:127.0.0.1:1")
    assert not list(tmp_path.iterdir())


def test_too_many_threads_for_every_node(ray_address: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has 64 free cores; lower speed\.threads"):
        run(small(speed={"threads": 64}), out=tmp_path, on=ray_address)


def test_flowers_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="engine: flower has processes of its own"):
        run(small(speed={"engine": "flower"}), out=tmp_path, on="ray")
    assert many_scenarios.run_all([], on="ray") == []
