"""`Observed` inside Flower's own runtime: worker processes, node ids of 64 bits, replies in any order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.flower

APP = """
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from fedmem import Observed, Watch
from tests.observation.observed_helpers import CLIENTS, Net, client_app, data_of, initial

server_app = ServerApp()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    watch = Watch(model=Net(), examples={"canaries": data_of(2)}, references={"canaries": data_of(99)[0]})
    Observed(FedAvg(fraction_evaluate=0.0), watch).start(grid=grid, initial_arrays=initial(), num_rounds=2)
    watch.frame().to_csv("frame.csv", index=False)


run_simulation(
    server_app=server_app,
    client_app=client_app,
    num_supernodes=CLIENTS,
    backend_config={"client_resources": {"num_cpus": 1}},
)
"""


def test_three_lines_measure_an_app_in_a_real_simulation(tmp_path: Path) -> None:
    import pandas as pd

    pytest.importorskip("ray", reason="Flower's simulation needs ray: pip install 'flwr[simulation]'")
    root = Path(__file__).parent.parent.parent
    settings = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    settings |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", APP],
        cwd=tmp_path,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    frame = pd.read_csv(tmp_path / "frame.csv")
    assert set(frame["round"]) == {0, 1, 2}
    local = frame[(frame.level == "local") & (frame["round"] == 2)]
    assert len(local) == 4 * 20
    mean = local.groupby("client").loss.mean().sort_values()
    # One client was given these examples; which node it became is Flower's to draw.
    assert mean.iloc[0] < 0.95 * mean.iloc[1]
    assert local.exposure.between(0, 4.4).all()
