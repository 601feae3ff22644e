"""Commands that are killed or interrupted at any moment, and started again until they are done: the same bytes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fedmem
from fedmem.execution.shard_store import kept_runs, place_of
from fedmem.processes import can_fork
from tests.execution.sharding_helpers import written

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="forks are for Linux")]

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = """
name: killed
runs: 8
rounds: 3
clients: 4
population: 20
references: 30
bootstrap: 20
dataset: {kind: synthetic}
model: {kind: mlp, hidden: [8]}
injections: [{kind: random_pattern, per_client: 1}, {kind: typical, per_client: 1}]
client: {kind: sgd, lr: 0.2, batch_size: 8}
observe: {every: 1}
probes:
  - {kind: utility}
  - {kind: leakage, attack: {kind: inverting_gradients, steps: 30}, victims: 1, rounds: [2]}
estimators: [{kind: memorisation}, {kind: exposure}]
save: {models: {rounds: [1, -1], runs: 6}}
speed: {shard: 1, workers: 2}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scenario") / "killed.yaml"
    path.write_text(SCENARIO)
    return path


@pytest.fixture(scope="module")
def whole(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The run that nobody disturbed, and how many seconds the command took."""
    out, started = tmp_path_factory.mktemp("whole"), time.monotonic()
    folder = completed(file, out)
    assert fedmem.read(folder).manifest["shards"]["workers"] == 2
    return folder, time.monotonic() - started


def started_command(file: Path, out: Path) -> subprocess.Popen[str]:
    """`fedmem run` in a process group of its own, as a shell would start it."""
    command = [sys.executable, "-c", "from fedmem.cli.main import main; main()", "run", str(file), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=env, text=True, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def completed(file: Path, out: Path) -> Path:
    """The folder of the run, after the command was left alone until it was done; nothing else is there."""
    last = started_command(file, out)
    said = last.communicate()[1]
    assert last.returncode == 0, said
    (folder,) = [path for path in (out / "killed").iterdir() if not path.name.startswith(".")]
    assert not place_of(folder).exists()
    return folder


def members(group: int) -> list[int]:
    """The processes of a group that are not yet gone."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = place.read_text().rpartition(") ")
        except OSError:
            continue
        state, _, its_group = rest.split()[:3]
        if int(its_group) == group and state != "Z":
            found.append(int(place.parent.name))
    return found


def wait_seconds(process: subprocess.Popen[str], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)


def until_gone(group: int) -> None:
    end = time.monotonic() + 30
    while members(group):
        assert time.monotonic() < end, "a process was left behind"
        time.sleep(0.02)


@pytest.mark.parametrize("moments", [1, pytest.param(20, marks=pytest.mark.nightly)])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    moments: int, file: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    folder, seconds = whole
    out, rng = tmp_path / "runs", random.Random(0)
    place, kept = out / "killed" / folder.name, [0]
    kills = attempts = 0
    while kills < moments or max(kept) <= 2:
        attempts += 1
        assert attempts < 4 * moments + 8, f"{kept} runs were kept in {attempts} attempts"
        process = started_command(file, out)
        if kills < moments:
            # the more is kept, the sooner it would be done
            wait_seconds(process, rng.uniform(0.1, seconds * (1 - kept[-1] / 12)))
        else:  # how far a run gets in some seconds depends on the machine
            while kept_runs(place) <= 2 and process.poll() is None:
                time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        until_gone(process.pid)
        if place.exists():  # done before it could be killed: begin another
            assert written(place) == written(folder)
            out = tmp_path / f"runs-{attempts}"
            place = out / "killed" / folder.name
        kept.append(kept_runs(place))
    assert written(completed(file, out)) == written(folder)


@pytest.mark.nightly
def test_killed_together_with_its_processes_it_goes_on(file: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    folder, seconds = whole
    rng = random.Random(1)
    for _ in range(4):
        process = started_command(file, tmp_path)
        time.sleep(rng.uniform(0.3, 0.8) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert written(completed(file, tmp_path)) == written(folder)


@pytest.mark.nightly
def test_one_of_its_processes_is_killed(file: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = whole
    process = started_command(file, tmp_path)
    workers: list[int] = []
    while len(workers) < 2:
        assert process.poll() is None
        workers = [member for member in members(process.pid) if member != process.pid]
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: the process that trained run " in said
    assert " was ended by signal 9 (Killed) before it was done" in said
    assert "Traceback" not in said
    until_gone(process.pid)
    assert written(completed(file, tmp_path)) == written(folder)


@pytest.mark.nightly
def test_ctrl_c_twice_at_any_moment(file: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    """All processes of the terminal get it, the second one while the first is being heeded."""
    folder, seconds = whole
    rng = random.Random(2)
    place = tmp_path / "killed" / folder.name
    told: list[str] = []
    for attempt in range(12):
        before = kept_runs(place)
        process = started_command(file, tmp_path)
        if attempt == 0:  # however busy the machine is, one attempt comes after something was kept
            while kept_runs(place) == before and process.poll() is None:
                time.sleep(0.02)
        else:  # training is in the middle of the command, between its imports and its figures
            time.sleep(rng.uniform(0.25, 0.7) * seconds * (1 - kept_runs(place) / 12))
        for pause in (0.0, rng.choice([0.0, 0.001, 0.01, 0.05, 0.2])):
            time.sleep(pause)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        until_gone(process.pid)
        assert "Traceback" not in said, said
        assert "Exception ignored" not in said, said
        if place.exists():  # the run was finished already
            shutil.rmtree(place)
            continue
        assert process.returncode == 1, f"attempt {attempt}: {said}"
        told.append(said.splitlines()[-1])
        assert told[-1].startswith("interrupted")
        if (kept := kept_runs(place)) > before:
            assert f"interrupted; kept {kept} of 8 runs. The same command continues: fedmem run" in told[-1]
    assert any("interrupted; kept" in one for one in told), told
    assert written(completed(file, tmp_path)) == written(folder)


@pytest.mark.nightly
def test_two_commands_at_once_do_not_disturb_each_other(file: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    folder, _ = whole
    both = [started_command(file, tmp_path) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes in ([0, 2], [0, 0]), said
    if codes == [0, 2]:
        (refused,) = [text for process, text in zip(both, said, strict=True) if process.returncode == 2]
        assert "is being computed by another process" in refused
    assert written(completed(file, tmp_path)) == written(folder)


@pytest.mark.nightly
def test_terminated_command_can_be_continued(file: Path, whole: tuple[Path, float], tmp_path: Path) -> None:
    """What `timeout` and most schedulers send."""
    folder, _ = whole
    process = started_command(file, tmp_path)
    place = tmp_path / "killed" / folder.name
    while not kept_runs(place) and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    process.communicate()
    until_gone(process.pid)
    if not place.exists():
        assert kept_runs(place)
    assert written(completed(file, tmp_path)) == written(folder)
