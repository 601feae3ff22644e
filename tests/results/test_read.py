from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmem.contracts.audit_set import FOREVER, AuditSet
from fedmem.contracts.data import Examples
from fedmem.contracts.evidence import Bank, Evidence, Participation, ReferenceEvidence
from fedmem.contracts.measurement import Measurement, Reading
from fedmem.errors import FolderError, RunError
from fedmem.results.folder import check_place, is_finished, writing
from fedmem.results.read import RESULTS_SCHEMA, read, read_bank
from fedmem.results.write import Results, replace_measurements, write_run

FEDERATION: Any = SimpleNamespace(num_clients=3, num_classes=3, counts={"test": 5, "base": np.int64(7)})


def measurement(value: float, **place: Any) -> Measurement:
    reading = Reading(metric="memorisation", value=value, low=value - 1, high=value + 1, n=4, subject="typical")
    everywhere: dict[str, Any] = {"run": -1, "round": 0, "level": "local", "client": -1, "source": "memorisation"}
    return Measurement(**everywhere | place, reading=reading)


MEASUREMENTS = [measurement(0.1), measurement(math.nan, round=1), measurement(-math.inf, level="global", round=-1)]


def bank(*, seed: int = 0, m: int = 6, models: int = 4, rounds: int = 2, canaries: int = 3, labels: int = 2) -> Bank:
    """A small bank with the values that are hardest to keep: NaN, infinities, negative zero, subnormal numbers."""
    rng = np.random.default_rng(seed)
    hard = np.array([math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1, 1 / 3])
    targets = rng.integers(0, labels, m) if m else np.zeros(0, np.int64)
    audit = AuditSet(
        examples=Examples(inputs=rng.random((m, 2, 3), np.float32), targets=targets, ids=-1 - np.arange(m)),
        kind=np.array([("pattern", "typical-own")[i >= canaries] for i in range(m)], dtype=np.str_),
        role=np.array([("canary", "typical")[i >= canaries] for i in range(m)], dtype=np.str_),
        owner=rng.integers(-1, 3, m).astype(np.int32),
        copies=rng.integers(1, 4, m).astype(np.int32),
        is_in=rng.random((4, m)) < 0.5,
        start=rng.integers(0, 4, m).astype(np.int32),
        stop=rng.choice([4, 9, FOREVER], m).astype(np.int32),
        injection=rng.integers(0, 3, m).astype(np.int32),
    )
    evidence, references = [], []
    run, client = rng.integers(0, 4, models).astype(np.int32), rng.integers(-1, 3, models).astype(np.int32)
    subjects = rng.permutation(min(canaries, m))
    names = np.unique(targets[subjects])
    for round_number in range(rounds):
        for name, n in (("audit", m), ("test", 5)):
            evidence.append(
                Evidence(
                    round=round_number, level="local", set=name, run=run, client=client,
                    loss=rng.choice(hard, (models, n)),
                    margin=rng.normal(size=(models, n)), correct=rng.random((models, n)) < 0.5,
                )
            )  # fmt: skip
        quantiles = rng.normal(size=(models, len(names), 8)).astype(np.float32)
        quantiles[rng.random((models, len(names))) < 0.5] = np.nan
        quantiles[rng.random(quantiles.shape) < 0.1] = np.nan
        ranks = rng.integers(0, 9, (2, models, len(subjects))).astype(np.int32)
        references.append(
            ReferenceEvidence(
                round=round_number, level="local", family="pattern", run=run, client=client, subjects=subjects, count=9,
                less=ranks[0], ties=ranks[1], labels=names, quantiles=quantiles,
            )
        )  # fmt: skip
    participation = [Participation(run=0, round=r, client=1, num_examples=5, failed=r == 1) for r in range(rounds)]
    return Bank(
        audit=audit, evidence=tuple(evidence), references=tuple(references), participation=tuple(participation),
        seed=seed, roster="per_run",
    )  # fmt: skip


def write(folder: Path, stored: Bank | None = None, **extra: Any) -> None:
    whole = {
        "scenario_yaml": "name: small\nseed: 0\n", "manifest": {"executor": "stacked"}, "measurements": MEASUREMENTS,
        "bank": stored or bank(), "federation": FEDERATION, "reconstructions": {},
    }  # fmt: skip
    how = {name: extra.pop(name) for name in ("force", "draw") if name in extra}
    write_run(folder, Results(**(whole | extra)), **how)


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


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


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
        "audit.parquet", "evidence.parquet", "manifest.json", "measurements.parquet", "params.safetensors",
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


def test_equal_measurements_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, reconstructions={"x/y": np.ones(3)})
    for name in entries(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_measurements_can_be_replaced_and_nothing_else_changes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    before = {name: (tmp_path / "a" / name).read_bytes() for name in entries(tmp_path / "a")}
    replace_measurements(tmp_path / "a", MEASUREMENTS)
    assert before == {name: (tmp_path / "a" / name).read_bytes() for name in entries(tmp_path / "a")}
    replace_measurements(tmp_path / "a", [measurement(math.nan)] * 5)
    run = read(tmp_path / "a")
    assert len(run.measurements) == run.manifest["rows"]["measurements"] == 5
    assert run.manifest["not_finite"]["measurements.value"] == {"nan": 5, "infinite": 0}
    assert run.manifest["rows"]["audit"] == 6


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="pickle"):
        write(tmp_path / "a", reconstructions={"x/y": np.array([{}], dtype=object)})


def test_a_finished_run_is_left_alone_without_force(tmp_path: Path) -> None:
    write(tmp_path / "a")
    with pytest.raises(RunError, match="--force"):
        write(tmp_path / "a", manifest={"executor": "one_by_one"})
    assert read(tmp_path / "a").manifest["executor"] == "stacked"
    assert entries(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug"), SystemExit(1)])
def test_an_interruption_leaves_no_trace_and_keeps_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(folder: Path, *_: Any) -> None:
        assert "evidence.parquet" in entries(folder)
        raise error

    write(tmp_path / "a")
    monkeypatch.setattr("fedmem.results.write._write_manifest", interrupt)
    with pytest.raises(type(error)):
        write(tmp_path / "new" / "b")
    with pytest.raises(type(error)):
        write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "stacked"


def test_force_replaces_a_run_once_the_new_one_is_complete(tmp_path: Path) -> None:
    for executor in ("stacked", "one_by_one"):
        write(tmp_path / "a", manifest={"executor": executor}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "one_by_one"


WRITER = """
import sys, time
from pathlib import Path
import fedmem.results.read
from tests.results.test_read import write

def stop(*_):
    print("nearly", flush=True)
    time.sleep(60)

fedmem.results.write._write_manifest = stop
write(Path(sys.argv[1]))
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run whose first writer was killed with nearly everything written."""
    root = Path(__file__).parents[2]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "a")], stdout=subprocess.PIPE, cwd=root, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "nearly\n"
    with writing(tmp_path / "a"):  # a second writer of the same run leaves the living one alone
        assert len(entries(tmp_path)) == 2
    shutil.rmtree(tmp_path / "a")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    return tmp_path / "a"


def test_a_killed_writer_leaves_nothing_that_looks_finished(killed: Path) -> None:
    (left,) = entries(killed.parent)
    assert left.startswith(".a.partial-")
    with pytest.raises(RunError, match="no finished run"):
        read(killed)
    with writing(killed) as folder:
        assert entries(killed.parent) == [folder.name]
    shutil.rmtree(killed)
    write(killed)
    assert entries(killed.parent) == ["a"]
    assert len(read(killed).measurements) == 3


def test_a_run_killed_between_the_two_renames_is_put_back(killed: Path) -> None:
    (left,) = killed.parent.iterdir()
    write(killed)
    killed.rename(left.with_name(left.name.replace("partial", "replaced")))
    with writing(killed, force=True):
        assert read(killed).manifest["executor"] == "stacked"
    assert entries(killed.parent) == ["a"]
    assert entries(killed) == []


def test_a_partial_folder_of_another_host_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".a.partial-1@elsewhere").mkdir()
    write(tmp_path / "a")
    assert entries(tmp_path) == [".a.partial-1@elsewhere", "a"]


@pytest.mark.parametrize("file", ["evidence", "reconstructions", "manifest", "sync"])
def test_a_full_disk_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place = {
        "evidence": "tables.evidence_rows",
        "reconstructions": "write.np.savez_compressed",
        "manifest": "write._write_manifest",
        "sync": "folder._sync",
    }
    monkeypatch.setattr(f"fedmem.results.{place[file]}", full)
    with pytest.raises(RunError, match=r"full.* need about .* MB .*--out.*same command"):
        write(tmp_path / "x" / "a")
    assert entries(tmp_path) == []


def test_another_error_of_the_system_is_not_mistaken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), writing(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "Permission denied")


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


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        read(tmp_path / "missing")
    write(tmp_path / "a")
    with pytest.raises(RunError, match=r"save\.params"):
        read(tmp_path / "a").params()
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"schema": {RESULTS_SCHEMA}', '"schema": 0'))
    with pytest.raises(RunError, match="schema 0"):
        read(tmp_path / "a")


@pytest.mark.parametrize("what", ["file", "dangling", "inside a file", "incomplete", "long"])
@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_cannot_be_used_is_told_before_any_work(tmp_path: Path, what: str, force: bool) -> None:
    folder = tmp_path / "runs" / "a"
    if what == "long":
        folder = tmp_path / ("x" * 300) / "a"
    elif what == "inside a file":
        (tmp_path / "runs").write_text("mine")
    else:
        folder.parent.mkdir()
        if what == "file":
            folder.write_text("mine")
        elif what == "dangling":
            folder.symlink_to(tmp_path / "nowhere")
        elif what == "incomplete":
            folder.mkdir()
            (folder / "evidence.parquet").write_text("half")
    before = sorted(map(str, tmp_path.rglob("*")))
    if what == "incomplete" and force:
        write(folder, force=True)
        assert read(folder).manifest["executor"] == "stacked"
        return
    with pytest.raises(FolderError, match=r"move it away|--out"):
        check_place(folder, force=force)
    with pytest.raises(FolderError):
        write(folder, force=force)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_an_empty_folder_is_no_finished_run_and_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert not is_finished(tmp_path / "a")
    write(tmp_path / "a")
    assert is_finished(tmp_path / "a")
    assert entries(tmp_path) == ["a"]


def test_trying_a_place_leaves_nothing_and_needs_no_folder(tmp_path: Path) -> None:
    check_place(tmp_path / "x" / "y" / "a")
    assert entries(tmp_path) == []


def test_force_replaces_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "old")
    (tmp_path / "a").symlink_to(tmp_path / "old")
    write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a", "old"]
    assert [read(tmp_path / name).manifest["executor"] for name in ("a", "old")] == ["one_by_one", "stacked"]


def test_a_rename_that_fails_puts_the_old_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        write(tmp_path / "a", manifest={"executor": "one_by_one"}, force=True)
    assert entries(tmp_path) == ["a"]
    assert read(tmp_path / "a").manifest["executor"] == "stacked"


STORED = ["audit", "evidence", "measurements", "participation", "references"]


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


@pytest.mark.parametrize("name", STORED)
def test_rows_that_are_missing_are_noticed(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    stored = json.loads(manifest.read_text())
    stored["rows"][name] += 1
    manifest.write_text(json.dumps(stored))
    with pytest.raises(RunError, match=rf"{name}\.parquet is damaged .* rows, .* were written"):
        getattr(read(tmp_path / "a"), name)
    if name != "measurements":
        with pytest.raises(RunError, match=rf"{name}\.parquet is damaged"):
            read_bank(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rows": 3}', "\xff"])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        read(tmp_path / "a")


def test_a_wrong_folder_is_told_which_one_may_be_meant(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "small" / "a")
    for near in ("runs", "runs/small", "runs/small/a/manifest.json"):
        with pytest.raises(FolderError, match=r"such as .*/runs/small/a$"):
            read(tmp_path / near)
    with pytest.raises(FolderError, match="there is no such folder"):
        read(tmp_path / "nowhere")
    assert FolderError.exit_code == 2


def test_measurements_come_back_as_records(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert list(map(repr, read(tmp_path / "a").rows())) == list(map(repr, MEASUREMENTS))
    write(tmp_path / "b", measurements=[])
    assert read(tmp_path / "b").rows() == []
