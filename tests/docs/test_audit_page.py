"""The app of the page on auditing one's own app: what its numbers say, in this process and on Flower's simulation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audit-your-own-app.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))
SEEDS = 8

DRIVER = f"""
from flwr.app import Context, RecordDict
from client_app import app as client_app
from server_app import app as server_app
from fedmem.engines._flower import FIRST_NODE, LocalGrid, in_process

def exchange(messages):
    replies = []
    for message in messages:
        node = message.metadata.dst_node_id
        config = {{"partition-id": node - FIRST_NODE, "num-partitions": 4}}
        replies.append(client_app(message, Context(1, node, config, RecordDict(), {{}})))
    return replies

with in_process():
    for seed in range({SEEDS}):
        server_app(LocalGrid(4, exchange), Context(1, 1, {{}}, RecordDict(), {{"seed": seed, "out": "frames"}}))

import runpy
runpy.run_path("control.py")
runpy.run_path("combine.py")["found"].to_parquet("found.parquet")
"""

SIMULATION = """
import sys
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation
from client_app import app as client_app
from server_app import app as server_app

seeded = ServerApp()

@seeded.main()
def main(grid, context):
    context.run_config.update(seed=int(sys.argv[1]), out="frames")
    server_app(grid, context)

run_simulation(server_app=seeded, client_app=client_app, num_supernodes=4,
               backend_config={"client_resources": {"num_cpus": 1}})
"""


def python(code: str, folder: Path, *arguments: str) -> str:
    settings = {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    settings |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """The files of the page."""
    assert list(FILES) == ["task.py", "client_app.py", "server_app.py", "combine.py", "control.py"]
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "frames").mkdir()
    return tmp_path


def test_the_page_finds_what_owners_memorise(app: Path) -> None:
    printed = python(DRIVER, app)
    assert "memorisation" in printed
    found = pd.read_parquet(app / "found.parquet")
    summary = found[(found.scope == "summary") & (found.subject == "canaries") & (found.statistic == "probability")]
    at: Any = summary[summary.metric == "memorisation"].set_index(["level", "place"]).sort_index()
    assert at.loc[("local", "owner")].low.item() > 0.5
    assert at.loc[("local", "owner")].value.item() > at.loc[("local", "others")].value.item() + 0.3
    assert at.n.tolist() == [16] * 3
    frame = pd.read_parquet(app / "frames" / "seed-00.parquet")
    local = frame[(frame.level == "local") & frame.included]
    assert set(frame.identity) == {"", "partition-id"}
    assert set(local.client) == set(range(4))
    assert local[local.holds].loss.mean() < 0.5 * local[~local.holds].loss.mean()


@pytest.mark.nightly
@pytest.mark.flower
def test_the_page_runs_on_flowers_simulation(app: Path) -> None:
    pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")
    for seed in (0, 1):
        python(SIMULATION, app, str(seed))
    frames = [pd.read_parquet(app / "frames" / f"seed-0{seed}.parquet") for seed in (0, 1)]
    for frame in frames:
        local = frame[(frame.level == "local") & frame.included & (frame["round"] == 3)]
        assert set(local.identity) == {"partition-id"}
        assert sorted(set(local.client)) == list(range(4))
        assert local.node.str.len().min() > 10
        # the partition is the owner, whatever node Flower drew for it
        assert local[local.holds].loss.mean() < 0.5 * local[~local.holds].loss.mean()
    assert set(frames[0].node) & set(frames[1].node) == {""}
    assert "memorisation" in python(FILES["combine.py"], app)
