"""Tests of `fedmem/execution/added_signals.py`: signals that are read after the training, at saved models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import fedmem
from fedmem.contracts.arrays import FloatArray
from fedmem.contracts.evidence import SignalEvidence
from fedmem.contracts.measure import Measure
from fedmem.contracts.signal import SignalContext, SignalLevel, signal_measures
from fedmem.errors import ComponentError, FedmemError, FolderError, RunError, ScenarioError
from fedmem.execution.run import measure, run
from fedmem.results.read import read_bank
from fedmem.results.transfer import renewing_list
from fedmem.scenario.yaml_source import write_flow
from fedmem.weights.model_files import digest_of_file
from tests.tiny import tiny

SMALL: dict[str, Any] = {
    "runs": 8,
    "injections": [{"kind": "typical", "per_client": 1}, {"kind": "mislabelled", "per_client": 1}],
    "estimators": [{"kind": "memorisation"}],
    "signals": [{"kind": "el2n"}],
    "speed": {"shard": 3},
}
ADDED: list[dict[str, Any]] = [
    {"kind": "grad_norm"},
    {"kind": "noise_robustness", "sigmas": [0.1], "draws": 2},
    {"kind": "probabilities", "levels": ["global"]},
    {"kind": "logits", "rows": 20},
]
ALL: dict[str, Any] = {"models": {"rounds": [0, 2, 4]}}
SOME: dict[str, Any] = {"models": {"rounds": [2], "levels": ["local"], "runs": 5}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that read all signals while it was trained."""
    signals = [*SMALL["signals"], *ADDED, {"kind": "gradient_variance"}]
    return run(tiny(**{**SMALL, "signals": signals}), out=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(**SMALL, save=ALL), out=tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def some_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(**SMALL, save=SOME), out=tmp_path_factory.mktemp("some"))


def copy(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / folder.name))


def adding(*signals: Mapping[str, Any]) -> list[str]:
    return [f"signals={write_flow([*SMALL['signals'], *signals])}"]


def blocks(folder: Path) -> dict[tuple[int, str, str], SignalEvidence]:
    return {(block.round, block.level, block.name): block for block in read_bank(folder).signals}


def test_values_are_the_bytes_that_the_run_would_have_read(whole: Path, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    evidence = (folder / "evidence.parquet").stat().st_ino
    measure(folder, adding(*ADDED, {"kind": "gradient_variance"}))
    in_run, after = blocks(whole), blocks(folder)
    assert list(in_run) == list(after)
    for place, block in in_run.items():
        assert block.values.tobytes() == after[place].values.tobytes(), place
        assert block.client.tobytes() == after[place].client.tobytes()
    names = ("measurements.parquet", "signals.parquet", "set_signals.parquet")
    assert [(folder / name).read_bytes() for name in names] == [(whole / name).read_bytes() for name in names]
    assert (folder / "evidence.parquet").stat().st_ino == evidence, "what stays is linked"
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_only_saved_models_have_values_and_that_is_said(whole: Path, some_saved: Path, tmp_path: Path) -> None:
    folder = copy(some_saved, tmp_path)
    measure(folder, adding({"kind": "grad_norm"}))
    in_run, after = blocks(whole), blocks(folder)
    assert {place for place in after if place[2] == "grad_norm"} == {(2, "local", "grad_norm")}
    block, reference = after[2, "local", "grad_norm"], in_run[2, "local", "grad_norm"]
    is_saved = block.run < 5
    assert block.values[is_saved].tobytes() == reference.values[is_saved].tobytes()
    assert np.isnan(block.values[~is_saved]).all()
    for place in ((0, "global", "el2n"), (4, "local", "el2n")):
        assert after[place].values.tobytes() == in_run[place].values.tobytes(), "those of the run stay"
    text = "grad_norm was read at the saved models: round 2, local, 5 of 8 runs. It is undefined at all others"
    run_of = fedmem.read(folder)
    assert any(text in warning for warning in run_of.manifest["warnings"])
    assert any(text in warning for warning in run_of.summary().warnings)
    rows = [row for row in run_of.rows() if row.source == "grad_norm"]
    assert rows
    assert {row.round for row in rows if row.round != -1} <= {2, None}
    measure(folder)
    assert sum(text in warning for warning in fedmem.read(folder).manifest["warnings"]) == 1


def test_a_signal_is_kept_dropped_and_added_by_hand(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    original = (folder / "scenario.yaml").read_text()
    before = (folder / "measurements.parquet").read_bytes()
    text = original.replace("signals:\n- kind: el2n", "signals:\n- kind: entropy\n- kind: el2n")
    assert text != original
    (folder / "scenario.yaml").write_text(text)
    with pytest.raises(FolderError, match="More was changed than signals after those of the run"):
        measure(folder)
    (folder / "scenario.yaml").write_text(original)
    measure(folder, adding({"kind": "entropy"}))
    added = (folder / "measurements.parquet").read_bytes()
    shutil.rmtree(folder / "models")
    measure(folder)  # it is stored now, and not read again
    assert (folder / "measurements.parquet").read_bytes() == added != before
    assert fedmem.read(folder).scenario["signals"][1]["kind"] == "entropy"
    assert run(tiny(**SMALL, save=ALL), out=tmp_path / "other").name == folder.name
    measure(folder, adding())
    assert (folder / "measurements.parquet").read_bytes() == before
    assert (folder / "scenario.yaml").read_text() == original
    assert fedmem.read(folder).manifest["added_signals"] == []


def test_a_finished_run_with_added_signals_is_served(saved: Path, tmp_path: Path) -> None:
    scenario = tiny(**SMALL, save=ALL)
    folder = Path(shutil.copytree(saved, tmp_path / scenario.name / scenario.id))
    measure(folder, adding({"kind": "entropy"}))
    finished = (folder / "manifest.json").stat().st_mtime_ns
    assert run(scenario, out=tmp_path) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == finished


REFUSED: dict[str, tuple[list[Mapping[str, Any]], str]] = {
    "reads an update": (
        [{"kind": "update_alignment"}],
        r"signals\[1\]: update_alignment reads the model before",
    ),
    "accumulates": (
        [{"kind": "gradient_variance"}],
        r"signals\[1\]: gradient_variance accumulates .* 4 were not",
    ),
    "other rounds": ([{"kind": "entropy", "every": 4}], r"in rounds 0, 4, and the run saved local in 2"),
    "other levels": ([{"kind": "entropy", "levels": ["global"]}], "is read at global in rounds 0, 2, 4, and the run"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_saved_models_do_not_suffice_for_is_refused(case: str, some_saved: Path, tmp_path: Path) -> None:
    folder = copy(some_saved, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    signals, message = REFUSED[case]
    with pytest.raises(ComponentError, match=message):
        measure(folder, adding(*signals))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_run_without_models_refuses_a_new_signal(whole: Path, tmp_path: Path) -> None:
    folder = copy(whole, tmp_path)
    signals = [*SMALL["signals"], *ADDED, {"kind": "gradient_variance"}, {"kind": "entropy"}]
    with pytest.raises(ComponentError, match=r"signals\[6\]: entropy was added .* holds no models .* save.models="):
        measure(folder, [f"signals={write_flow(signals)}"])


def test_anything_else_that_changed_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    for change in ("seed=4", "rounds=3", "signals=[]", "signals=[{kind: entropy}, {kind: el2n}]", "save.models=null"):
        with pytest.raises(FolderError, match="with these changes describes"):
            measure(folder, [change])
    with pytest.raises(ScenarioError, match="signals"):
        measure(folder, ["signals=[{kind: nothing}]"])


@pytest.mark.parametrize("what", ["components", "modules", "files"])
def test_changed_code_or_data_is_refused_by_name(what: str, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    changed = {"components": {"mlp": "0"}, "modules": {"fedmem": "0"}, "files": {"npz (data.npz)": "0"}}
    manifest[what] |= changed[what]
    file.write_text(json.dumps(manifest))
    name = {"components": "mlp", "modules": "fedmem", "files": r"the files of npz \(data.npz\)"}[what]
    with pytest.raises(FolderError, match=rf"was trained when the content of {name} was another"):
        measure(folder, adding({"kind": "entropy"}))
    measure(folder)  # estimates of what is stored do not depend on it


def test_models_of_another_run_are_found_by_their_losses(saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    file = folder / "models" / "round-4-global.safetensors"
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    params = load_file(file)
    save_file({name: value + 1 for name, value in params.items()}, file, metadata=metadata)
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["models"]:
        if (entry["round"], entry["level"]) == (4, "global"):
            entry |= {"sha256": digest_of_file(file), "bytes": file.stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"round-4-global.safetensors cannot be used: its models give other losses"):
        measure(folder, adding({"kind": "entropy"}))


@pytest.mark.parametrize("how", ["gone", "flipped", "swapped"])
def test_a_damaged_file_changes_nothing(how: str, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    file, other = (folder / "models" / f"round-{number}-local.safetensors" for number in (4, 2))
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(other.read_bytes() if how == "swapped" else bytes([*data[:-1], data[-1] ^ 1]))
    before = (folder / "measurements.parquet").read_bytes()
    with pytest.raises(RunError, match=r"round-4-local.safetensors (is missing|cannot be used)"):
        measure(folder, adding({"kind": "entropy"}))
    assert (folder / "measurements.parquet").read_bytes() == before
    measure(folder)


@dataclass(frozen=True, kw_only=True)
class Peeking:
    """A signal that reads an update and does not say so."""

    measures: ClassVar[tuple[Measure, ...]] = signal_measures(
        Measure(name="peeking", title="peeking", means="Nothing.", direction="neither")
    )
    every: int | None = None
    levels: tuple[SignalLevel, ...] = ("local",)
    part: str = "before"

    def values(self, context: SignalContext) -> Mapping[str, FloatArray]:
        model = getattr(context.transitions[0], self.part)
        return {"peeking": np.full((len(context.transitions), len(context.examples)), float(len(model.items())))}


@pytest.mark.parametrize("part", ["before", "sent", "report"])
def test_a_signal_that_does_not_declare_its_update_fails(part: str, saved: Path, tmp_path: Path) -> None:
    folder = copy(saved, tmp_path)
    kind = {"kind": "tests.execution.test_added_signals:Peeking", "part": part}
    with pytest.raises(FedmemError, match="reads what is not saved: the model before a round, the update"):
        measure(folder, adding(kind))


def test_a_killed_replacement_leaves_the_old_run(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy(saved, tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    from fedmem.results import write

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "write_measurements", fail)
    with pytest.raises(KeyboardInterrupt):
        measure(folder, adding({"kind": "entropy"}))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_pulled_copy_has_the_models_and_an_export_has_none(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    fedmem.push(saved, str(tmp_path / "there"))
    with renewing_list(tmp_path / "there"):
        measure(tmp_path / "there", adding({"kind": "entropy"}))
    fedmem.pull(str(tmp_path / "there"), tmp_path / "again")
    assert len(list(fedmem.read(tmp_path / "again").models(run=0, level="global"))) == 3
    assert fedmem.read(tmp_path / "again").scenario["signals"][1]["kind"] == "entropy"
    exported = fedmem.export(tmp_path / "again", "csv", out=tmp_path / "csv")
    assert not [path for path in Path(str(exported)).rglob("*") if "safetensors" in path.name]
