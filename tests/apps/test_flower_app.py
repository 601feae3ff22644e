"""Tests of `fedmem/apps/flower_app.py`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fedmem.apps.flower_app import load_configured, log
from fedmem.contracts.events import ReadingsTaken, ScenarioFinished
from tests.tiny import tiny


def test_absolute_file_takes_quoted_changes_on_flower(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(tiny().to_yaml())
    found = load_configured(str(file), "runs=2 'sampler={kind: uniform, size: 2}'")
    assert (found.runs, found.speed.engine) == (2, "flower")
    assert found.id == tiny(runs=2, sampler={"kind": "uniform", "size": 2}).id


def test_every_event_but_readings_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="flwr.fedmem"):
        log(ReadingsTaken(measurements=()))
        log(ScenarioFinished(folder="runs/tiny/0123"))
    assert len(caplog.messages) == 1
    assert "runs/tiny/0123" in caplog.messages[0]
