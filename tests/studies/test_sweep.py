"""Sweeps: what axes mean, nothing twice, failures noted and retried alone, searches that go on where they were."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import fedmem
from fedmem.cli.main import app
from fedmem.studies.sweep import sweep
from tests.studies.sweep_helpers import RATES, Write

CODE = "from fedmem.cli.main import main; main()"
SETTINGS, KILLS = map(int, os.environ.get("FEDMEM_LONG", "40,12").split(","))
"""How many settings a long sweep has, and how often it is killed; `FEDMEM_LONG=500,50` for a thousand runs."""

TABLES = ("evidence.parquet", "measurements.parquet", "participation.parquet")


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


@pytest.mark.nightly
@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_it_never_was(write: Write, tmp_path: Path) -> None:
    axis = {"path": "client.lr", "range": [0.1, 0.4], "steps": SETTINGS}
    file = write(axes=[axis], seeds="0:2", set={"rounds": 8, "runs": 8})
    draw = random.Random(0)
    counts = []
    for _ in range(KILLS):
        given = ["sweep", str(file), "--out", str(tmp_path / "killed"), "--jobs", "2", "--quiet"]
        process = subprocess.Popen([sys.executable, "-c", CODE, *given])
        time.sleep(draw.uniform(1.0, 8.0))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(list((tmp_path / "killed" / "tiny").glob("[!.]*/manifest.json"))))
    assert counts == sorted(counts), "what is finished stays"
    assert counts[0] < 2 * SETTINGS
    killed, whole = (sweep(file, out=tmp_path / name, jobs=2) for name in ("killed", "whole"))
    assert not killed.failed
    one, other = (pd.read_parquet(done.path / "results.parquet") for done in (killed, whole))
    pd.testing.assert_frame_equal(one, other)
    folders = sorted(path.parent.name for path in (tmp_path / "whole" / "tiny").glob("[!.]*/manifest.json"))
    assert len(folders) == 2 * SETTINGS
    for name in folders:
        for table in TABLES:
            files = [tmp_path / place / "tiny" / name / table for place in ("killed", "whole")]
            assert files[0].read_bytes() == files[1].read_bytes()
    assert not list((tmp_path / "killed" / "tiny").glob(".*.shards")), "nothing half-finished is left"
