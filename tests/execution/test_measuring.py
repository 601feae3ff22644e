"""Tests of `fedmem/execution/measuring.py`; more of measuring again are in `test_run.py`."""

from __future__ import annotations

from pathlib import Path

import fedmem
from fedmem.execution.run import run
from tests.execution.model_saver_helpers import SAVE, SMALL
from tests.tiny import tiny


def test_measuring_again_leaves_saved_models_as_they_are(tmp_path: Path) -> None:
    folder = run(tiny(**SMALL, save=SAVE), out=tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    measurements = (folder / "measurements.parquet").read_bytes()
    assert fedmem.measure(folder) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before
    assert (folder / "measurements.parquet").read_bytes() == measurements
