from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.errors import FolderError, RunError
from fedmem.results.read import RESULTS_SCHEMA, read, read_bank
from fedmem.results.write import replace_measurements
from tests.results.read_helpers import STORED, bank, entries, measurement, write


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, in the same types."""
    if isinstance(one, np.ndarray):
        assert (one.shape, one.dtype.kind) == (other.shape, other.dtype.kind)
        if one.dtype.kind == "U":
            assert one.tolist() == other.tolist()
        else:
            assert one.dtype == other.dtype
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
            assert one.dtype.kind != "f" or np.array_equal(np.signbit(one), np.signbit(other))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif hasattr(one, "__dataclass_fields__"):
        assert type(one) is type(other)
        for part in fields(one):
            assert_same(getattr(one, part.name), getattr(other, part.name))
    else:
        assert one == other


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), m=st.integers(0, 7), models=st.integers(0, 5), rounds=st.integers(0, 3),
    canaries=st.integers(0, 4), labels=st.integers(1, 3),
)  # fmt: skip
def test_a_bank_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, **shape: int) -> None:
    folder = tmp_path_factory.mktemp("bank") / "run"
    stored = bank(**shape)
    write(folder, stored)
    assert_same(stored, read_bank(folder))


def test_frames_manifest_and_arrays(tmp_path: Path) -> None:
    stored, arrays = bank(), {"leakage/original": np.arange(6, dtype=np.float32).reshape(2, 3)}
    manifest = {"epsilon": math.inf, "alarms": [np.float64("nan")], "threads": np.int64(1), "z": {"b": 1, "a": (1, 2)}}
    write(
        tmp_path / "small" / "abc", stored, manifest=manifest, reconstructions=arrays, params={"w": torch.ones(2, 2).T}
    )
    run = read(tmp_path / "small" / "abc")
    assert entries(run.path) == [
        "audit.parquet", "evidence.parquet", "examples.json", "manifest.json",
            "measurements.parquet", "params.safetensors",
        "participation.parquet", "reconstructions.npz", "references.parquet", "scenario.yaml",
    ]  # fmt: skip
    assert run.scenario == {"name": "small", "seed": 0}
    assert run.measurements["value"].tolist()[0] == 0.1
    assert np.isnan(run.measurements["value"][1])
    assert np.isneginf(run.measurements["value"][2])
    assert run.measurements["level"].tolist() == ["local", "local", "global"]
    assert run.manifest["epsilon"] is None
    assert run.manifest["alarms"] == [None]
    assert run.manifest["threads"] == 1
    assert run.manifest["schema"] == RESULTS_SCHEMA
    assert run.manifest["rows"] == {
        "audit": 6, "evidence": 2 * 4 * (6 + 5), "measurements": 3, "participation": 2,
        "references": 2 * 4 * len(stored.references[0].labels),
    }  # fmt: skip
    assert run.manifest["not_finite"]["measurements.value"] == {"nan": 1, "infinite": 1}
    losses = np.concatenate([block.loss.ravel() for block in stored.evidence])
    assert run.manifest["not_finite"]["evidence.loss"]["nan"] == np.isnan(losses).sum() > 0
    assert len(run.evidence) == len(losses)
    second = run.evidence[(run.evidence["set"] == "audit") & (run.evidence["round"] == 1)].reset_index()
    assert second["margin"][8] == stored.evidence[2].margin[1, 2]
    assert second["subject"][8] == 2
    assert second["client"][8] == stored.evidence[2].client[1]
    for subjects, label in zip(run.references["subjects"], run.references["label"], strict=True):
        assert (stored.audit.examples.targets[subjects] == label).all()
    assert run.audit["is_in"][1].tolist() == stored.audit.is_in[:, 1].tolist()
    for name in ("injection", "kind", "role", "owner", "copies", "start", "stop"):
        assert run.audit[name].tolist() == getattr(stored.audit, name).tolist()
    assert run.audit["target"].tolist() == stored.audit.examples.targets.tolist()
    assert run.audit["id"].tolist() == stored.audit.examples.ids.tolist()
    assert run.participation["failed"].tolist() == [False, True]
    assert np.array_equal(run.reconstructions()["leakage/original"], arrays["leakage/original"])
    assert torch.equal(run.params()["w"], torch.ones(2, 2))
    text = (run.path / "manifest.json").read_text()
    assert "NaN" not in text
    assert text.index('"a"') < text.index('"b"')


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="pickle"):
        write(tmp_path / "a", reconstructions={"x/y": np.array([{}], dtype=object)})


def test_a_finished_run_is_left_alone_without_force(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(RunError, match="--force"):
        write(tmp_path / "a", manifest={"executor": "one_by_one"})
    assert read(tmp_path / "a").manifest["executor"] == "stacked"
    assert entries(tmp_path) == ["a"]


@pytest.mark.parametrize("file", ["evidence", "reconstructions", "manifest", "sync"])
def test_full_disk_is_an_error_with_a_fix_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {
        "evidence": "evidence_table.evidence_rows",
        "reconstructions": "write.np.savez_compressed",
        "manifest": "write._write_manifest",
        "sync": "folder._sync",
    }
    monkeypatch.setattr(f"fedmem.results.{place[file]}", full)
    with pytest.raises(RunError, match=r"full.* need about .* MB .*--out.*same command"):
        write(tmp_path / "x" / "a")
    assert entries(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    write(tiny_disk / "a")
    old = read(tiny_disk / "a").manifest
    with pytest.raises(RunError, match="is full"):
        write(tiny_disk / "a", bank(m=400, models=40), force=True)
    with pytest.raises(RunError, match="is full"):
        write(tiny_disk / "b", params={"w": torch.ones(100, 1000)})
    with pytest.raises(RunError, match="is full"):
        replace_measurements(
            tiny_disk / "a", [measurement(float(value)) for value in np.random.default_rng(0).normal(size=20000)]
        )
    assert entries(tiny_disk) == ["a"]
    assert read(tiny_disk / "a").manifest == old
    assert len(read(tiny_disk / "a").measurements) == 3
    assert not [name for name in entries(tiny_disk / "a") if name.startswith(".")]


def test_unreadable_results_are_errors_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        read(tmp_path / "missing")
    write(tmp_path / "a")
    with pytest.raises(RunError, match=r"save\.params"):
        read(tmp_path / "a").params()
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"schema": {RESULTS_SCHEMA}', '"schema": 0'))
    with pytest.raises(RunError, match="schema 0"):
        read(tmp_path / "a")


@pytest.mark.parametrize("file", [*(f"{name}.parquet" for name in STORED), "reconstructions.npz", "scenario.yaml"])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, damage: str) -> None:
    write(tmp_path / "a", reconstructions={"x/y": np.ones(30)})
    path = tmp_path / "a" / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" and path.suffix != ".yaml" else b"[\x00\xff")
    says = rf"{file} is {'missing' if damage == 'gone' else 'damaged'} \(.*\); .*--force"

    def everything() -> None:
        run = read(tmp_path / "a")
        assert run.scenario
        read_bank(tmp_path / "a")
        run.rows()
        run.reconstructions()

    with pytest.raises(RunError, match=says):
        everything()
    if file in {f"{name}.parquet" for name in STORED}:
        with pytest.raises(RunError, match=says):
            getattr(read(tmp_path / "a"), path.stem)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rows": 3}', "\xff"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        read(tmp_path / "a")


def test_wrong_folder_is_an_error_with_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "small" / "a")
    for near in ("runs", "runs/small", "runs/small/a/manifest.json"):
        with pytest.raises(FolderError, match=r"such as .*/runs/small/a$"):
            read(tmp_path / near)
    with pytest.raises(FolderError, match="there is no such folder"):
        read(tmp_path / "nowhere")
    assert FolderError.exit_code == 2
