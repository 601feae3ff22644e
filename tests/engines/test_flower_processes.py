"""The engine `flower` as its users meet it: commands, a cluster, Ctrl-C, and `flwr run .`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import TINY

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
MARK = "FEDMEM_TEST_FOLDER"

pytestmark = pytest.mark.flower


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps({**TINY, "runs": 2, "rounds": 2, "clients": 3, "sampler": {"kind": "everyone"}}))
    return file


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    """Marked, so that whatever is started can be found again, and nobody else's."""
    settings = {MARK: str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    return os.environ | settings | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"} | more


def fedmem(tmp_path: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-c",
        "from fedmem.cli.main import main; main()",
        *words,
        "--out",
        str(tmp_path / "runs"),
    ]
    return subprocess.run(
        command, cwd=work, env=environment(tmp_path), capture_output=True, text=True, timeout=300, **options
    )


def marked(tmp_path: Path) -> dict[int, str]:
    """The processes that still run of all that a test has started."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"{MARK}={tmp_path}".encode() in variables and line:
                found[int(folder.name)] = line
    return found


def until(true: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture(autouse=True)
def _nothing_survives(tmp_path: Path) -> Iterator[None]:
    yield
    for process in marked(tmp_path):
        os.kill(process, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_run_on_flower_writes_what_a_run_in_lockstep_writes(tmp_path: Path, scenario: Path) -> None:
    """Evidence and measurements byte for byte; quietly, with nothing left behind."""
    done = fedmem(tmp_path, "run", str(scenario), "--engine", "flower", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert until(lambda: not marked(tmp_path), 20), marked(tmp_path)
    assert not list((tmp_path / "work").iterdir())
    (there,) = (tmp_path / "runs" / "tiny").iterdir()
    assert done.stdout.split() == [str(there)]
    moved = there.rename(tmp_path / "there")
    manifest = json.loads((moved / "manifest.json").read_text())
    assert (manifest["engine"], manifest["executor"], manifest["server"]) == ("flower", "one_by_one", "messages")
    assert manifest["versions"]["ray"]
    again = fedmem(tmp_path, "run", str(scenario), "--quiet", "--set", "speed.executor=one_by_one")
    assert again.returncode == 0, again.stderr
    here = Path(again.stdout.strip())
    assert "ray" not in json.loads((here / "manifest.json").read_text())["versions"]
    for name in ("evidence", "references", "measurements", "participation", "audit"):
        assert (here / f"{name}.parquet").read_bytes() == (moved / f"{name}.parquet").read_bytes(), name


@pytest.mark.nightly
def test_failed_run_prints_one_cause_and_ends_its_processes(tmp_path: Path, scenario: Path) -> None:
    changes = ("strategy.kind=tests.faults:Numbering", "client.kind=tests.faults:Failing", "client.how=die")
    words = [word for change in changes for word in ("--set", change)]
    done = fedmem(tmp_path, "run", str(scenario), "--engine", "flower", "--quiet", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: round 2: 1 of 3 clients failed, first client 1: its worker process died")
    assert len(done.stderr.strip().splitlines()) < 8
    assert until(lambda: not marked(tmp_path), 20), marked(tmp_path)
    assert not list((tmp_path / "runs").glob("**/*.parquet"))


def test_ctrl_c_ends_the_run_and_ray(tmp_path: Path, scenario: Path) -> None:
    """As a terminal does it: every process of the group is told."""
    words = ["run", str(scenario), "--engine", "flower", "--quiet", "--set", "rounds=100000"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from fedmem.cli.main import main; main()", *words, "--out", str(tmp_path / "runs")],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert until(lambda: any("ClientAppActor" in line for line in marked(tmp_path).values()), 120)
        time.sleep(3)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        # without this a failure would wait for the hundred thousand rounds
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("interrupted")
    assert "Traceback" not in err
    assert until(lambda: not marked(tmp_path), 20), marked(tmp_path)
    assert not list((tmp_path / "runs").glob("**/*.parquet"))


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", *(pytest.param(text, marks=pytest.mark.nightly) for text in ("ray://127.0.0.1:1", "nowhere"))],
)
def test_unreachable_address_is_an_error_within_a_minute(tmp_path: Path, scenario: Path, address: str) -> None:
    started = time.monotonic()
    done = fedmem(
        tmp_path, "run", str(scenario), "--engine", "flower", "--quiet", "--set", f"speed.address={json.dumps(address)}"
    )
    assert done.returncode == 1
    assert f"speed.address {address}: no Ray cluster" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 60


@pytest.mark.nightly
def test_a_cluster_that_runs_is_used_and_left_running(tmp_path: Path, scenario: Path) -> None:
    port = free_port()
    # paths of sockets have at most 107 bytes
    short = tempfile.mkdtemp(prefix="ray")
    head = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"),
            *(f"--port={port}", f"--ray-client-server-port={free_port()}", f"--temp-dir={short}"),
        ],
        env=environment(tmp_path, RAY_USAGE_STATS_ENABLED="0"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with head:
        try:

            def up() -> bool:
                with socket.socket() as probe:
                    return not probe.connect_ex(("127.0.0.1", port))

            assert until(up, 60)
            time.sleep(5)
            done = fedmem(
                tmp_path,
                *("run", str(scenario), "--engine", "flower", "--quiet", "--set", f"speed.address=127.0.0.1:{port}"),
            )
            assert (done.returncode, done.stderr) == (0, "")
            assert head.poll() is None
            assert up()
        finally:
            os.killpg(head.pid, signal.SIGKILL)
            shutil.rmtree(short, ignore_errors=True)


def flwr(tmp_path: Path, *words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    settings = {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    env = environment(tmp_path, **settings)
    # the app brings its own fedmem
    del env["PYTHONPATH"]
    return subprocess.run([str(BIN / "flwr"), *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.nightly
def test_flwr_run_gives_the_same_bytes(tmp_path: Path, scenario: Path) -> None:
    before = {path.name for path in ROOT.iterdir()}
    config = f"scenario='{scenario}' out='{tmp_path / 'runs'}' set='observe.every=1'"
    done = flwr(tmp_path, "run", ".", "--stream", "--federation-config", "num-supernodes=3", "--run-config", config)
    assert done.returncode == 0, done.stderr[-2000:]
    (there,) = (tmp_path / "runs" / "tiny").iterdir()
    assert f"results are in {there}" in done.stdout
    assert re.search(r"round 2 of 2 in runs? .*accuracy 0\.\d", done.stdout), done.stdout
    assert {path.name for path in ROOT.iterdir()} == before
    moved = there.rename(tmp_path / "there")
    again = fedmem(
        tmp_path, "run", str(scenario), "--quiet", "--set", "speed.executor=one_by_one", "--set", "observe.every=1"
    )
    here = Path(again.stdout.strip())
    for name in ("evidence", "references", "measurements", "participation", "audit"):
        assert (here / f"{name}.parquet").read_bytes() == (moved / f"{name}.parquet").read_bytes(), name


@pytest.mark.nightly
def test_the_recipe_of_the_page_runs(tmp_path: Path) -> None:
    recipe = re.search(
        r"^flwr (run .*)$", (ROOT / "docs" / "flower-runtime.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert recipe
    words = shlex.split(recipe[1].replace("$PWD", str(tmp_path)))
    done = flwr(tmp_path, *words)
    (folder,) = (tmp_path / "runs" / "quickstart").iterdir()
    assert f"results are in {folder}" in done.stdout
    assert json.loads((folder / "manifest.json").read_text())["engine"] == "flower"


@pytest.mark.nightly
def test_flwr_run_with_too_few_nodes_reports_both_counts(tmp_path: Path, scenario: Path) -> None:
    done = flwr(tmp_path, "run", ".", "--stream", "--run-config", f"scenario='{scenario}' out='{tmp_path / 'runs'}'")
    assert "has 2 nodes for 3 clients; start it with at least 3" in done.stdout
    assert "num-supernodes=3" in done.stdout
    assert not (tmp_path / "runs" / "tiny").exists() or not list((tmp_path / "runs" / "tiny").iterdir())
