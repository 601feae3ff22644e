"""An offline run of Weights & Biases has every point; nothing is sent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.export import ExportContent, ExportRun, Scalar
from fedmem.exports.wandb import Wandb, _environment

POINTS = [
    Scalar(name="auc/local/a", step=1, value=0.5),
    Scalar(name="auc/local/a.low", step=1, value=0.25),
    Scalar(name="auc/local/a", step=2, value=1 / 3),
]


def records_of(file: Path) -> list[Any]:
    """The records of an offline run, by the package's own reader."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store, records = DataStore(), []
    store.open_for_scan(str(file))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def test_every_point_is_read_back(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    run = ExportRun(name="t/id", parameters={"strategy.kind": "fedavg"}, scalars=POINTS, notes={"verdict": "Yes."})
    Wandb().write(ExportContent(title="t", id="id", runs=[run]), tmp_path, tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for record in records_of(file):
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({name: value for name, value in items.items() if not name.startswith("_")})
    assert rows == [
        {"round": 1, "auc/local/a": 0.5, "auc/local/a.low": 0.25},
        {"round": 2, "auc/local/a": 1 / 3},
    ]


def test_the_environment_asks_for_no_network_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    before = dict(os.environ)
    with _environment():
        assert (os.environ["WANDB_MODE"], os.environ["WANDB_ERROR_REPORTING"]) == ("offline", "false")
    assert dict(os.environ) == before
