"""An offline run of Weights & Biases has every point; nothing is sent."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from fedmem.contracts.export import ExportContent, ExportRun, Scalar
from fedmem.errors import RunError
from fedmem.exports.wandb import Wandb, _environment

POINTS = [
    Scalar(name="auc/local/a", step=1, value=0.5),
    Scalar(name="auc/local/a.low", step=1, value=0.25),
    Scalar(name="auc/local/a", step=2, value=1 / 3),
]


def records_of(file: Path) -> list[Any]:
    """The records of an offline run: a log of blocks of 32 kB, in which a record may go on in the next block."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts, records = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
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


def test_an_open_run_of_the_caller_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setattr(wandb, "run", object())
    with pytest.raises(RunError, match=r"wandb.finish\(\)"):
        Wandb().write(ExportContent(title="t", id="id"), tmp_path, tmp_path)


def test_the_environment_asks_for_no_network_and_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    before = dict(os.environ)
    with _environment():
        assert (os.environ["WANDB_MODE"], os.environ["WANDB_ERROR_REPORTING"]) == ("offline", "false")
    assert dict(os.environ) == before
