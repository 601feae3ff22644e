"""Sweeps: what axes mean, nothing twice, failures noted and retried alone, searches that go on where they were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.studies.sweep import sweep
from tests.studies.sweep_helpers import RATES, Write

CODE = "from fedmem.cli.main import main; main()"


def test_sweep_and_scenario_files_are_distinguished(write: Write, tmp_path: Path) -> None:
    run, file = CliRunner().invoke, str(write(axes=[RATES]))
    done = run(app, ["run", file])
    assert done.exit_code == 2
    assert f"this is a sweep file, not a scenario; run it with: fedmem sweep {file}" in done.output
    done = run(app, ["sweep", str(tmp_path / "tiny.yaml")])
    assert done.exit_code == 2
    assert "this is a scenario, not a sweep of one; run it with: fedmem run" in done.output
    (tmp_path / "file").touch()
    done = run(app, ["sweep", file, "--out", str(tmp_path / "file" / "z")])
    assert done.exit_code == 2
    assert "cannot hold the results" in done.output


def test_sweep_command_reports_failures_and_writes_results(write: Write, tmp_path: Path) -> None:
    run = CliRunner().invoke
    axes = [{"path": "strategy.kind", "values": ["fedavg", "tests.execution.many_scenarios_helpers:Breaking"]}]
    failed = run(app, ["sweep", str(write(axes=axes)), "--out", str(tmp_path), "--jobs", "1"])
    assert failed.exit_code == 1
    assert "1 of 2 runs failed; --retry-failed" in failed.output
    assert "Breaking, seed 0: " in failed.output
    assert run(app, ["sweep", str(write(axes=[])), "--out", str(tmp_path)]).exit_code == 2
    right = run(app, ["sweep", str(write(axes=[RATES])), "--out", str(tmp_path), "--jobs", "1", "--quiet"])
    assert right.exit_code == 0
    assert (Path(right.output.strip()) / "results.parquet").exists()
    assert fedmem.sweep is sweep


@pytest.mark.nightly
@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(write: Write, tmp_path: Path) -> None:
    file = write(
        axes=[{"path": "client.lr", "range": [0.1, 0.4], "steps": 8}], seeds="0:2", set={"rounds": 12, "runs": 16}
    )
    given = ["sweep", str(file), "--out", str(tmp_path / "out"), "--jobs", "1", "--quiet"]
    process = subprocess.Popen([sys.executable, "-c", CODE, *given])
    place, end = tmp_path / "out" / "tiny", time.monotonic() + 90
    while not list(place.glob("[!.]*/manifest.json")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = {path: path.stat().st_mtime_ns for path in place.glob("[!.]*/manifest.json")}
    assert 0 < len(there) < 16
    done = sweep(file, out=tmp_path / "out", jobs=2)
    assert not done.failed
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert len(list(place.glob("[!.]*/manifest.json"))) == 16
