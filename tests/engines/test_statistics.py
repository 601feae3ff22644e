"""Tests of `fedmem/engines/_statistics.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedmem.contracts.training_mode import TrainingMode
from fedmem.engines._statistics import require_final_variances, require_variances
from fedmem.errors import RunError
from fedmem.execution.run import run
from tests.normalised import normed


def test_negative_variances_end_the_run_with_the_cause(tmp_path: Path) -> None:
    mode = TrainingMode(statistics=("running_mean", "running_var"))
    require_variances({"running_mean": torch.tensor([-1.0]), "running_var": torch.tensor([0.0])}, mode, 1)
    with pytest.raises(RunError, match=r"round 2: after aggregation the running variance 'running_var' is -0\.5"):
        require_variances({"running_var": torch.tensor([1.0, -0.5])}, mode, 2)
    strategy = {"kind": "fedavgm", "server_lr": 6.0, "momentum": 0.9}
    for server in ("rule", "messages"):
        with pytest.raises(RunError, match="after aggregation the running variance"):
            run(normed(strategy=strategy, runs=2, speed={"server": server}), out=tmp_path / server)


def test_the_last_aggregate_is_looked_at_as_well() -> None:
    mode = TrainingMode(statistics=("running_var",))
    good, bad = {"running_var": torch.tensor([1.0])}, {"running_var": torch.tensor([-1.0])}
    require_final_variances([good, good], mode, 4)
    with pytest.raises(RunError, match="round 4"):
        require_final_variances([good, bad], mode, 4)
    require_final_variances([bad], TrainingMode(), 4)
