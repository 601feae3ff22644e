"""From a scenario to a folder: the same bytes twice, estimates again from evidence, nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fedmem
from fedmem.contracts.evidence import Evidence
from fedmem.contracts.measurement import Level, Reading
from fedmem.errors import FolderError, RunError, ScenarioError
from fedmem.execution.run import _alarms, measure, run
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A probe that raises. Fields: none of interest."""

    every: int | None = None
    levels: tuple[Level, ...] = ("local", "global")

    def observe(self, transitions: Any, context: Any) -> Any:
        return 1 / 0

    def summarise(self, measurements: Any, seed: int) -> Any:
        return []


MEASURED: dict[str, Any] = {
    "dataset": {"kind": "synthetic", "rows": 250, "test": 50},
    "runs": 8,
    "probes": [
        {"kind": "utility"},
        {"kind": "leakage", "attack": {"kind": "inverting_gradients", "steps": 5}, "victims": 1, "runs": 1},
    ],
    "estimators": [
        {"kind": "memorisation"},
        {"kind": "exposure"},
        {"kind": "membership", "attack": {"kind": "lira"}},
        {"kind": "membership", "attack": {"kind": "loss_threshold"}},
    ],
}


SAVED: dict[str, Any] = {"save": {"params": True}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `MEASURED` with its models; tests that write into it copy it."""
    return run(tiny(**MEASURED, **SAVED), out=tmp_path_factory.mktemp("measured"))


@pytest.fixture
def copied(measured: Path, tmp_path: Path) -> Path:
    """The same folder, to be written into."""
    return Path(shutil.copytree(measured, tmp_path / measured.parent.name / measured.name))


def test_the_same_scenario_twice_gives_the_same_measurements(measured: Path, tmp_path: Path) -> None:
    scenario = tiny(**MEASURED, **SAVED)
    one, other = measured, run(scenario, out=tmp_path)
    assert one.relative_to(one.parents[1]) == other.relative_to(tmp_path) == Path("tiny") / scenario.id
    assert (one / "measurements.parquet").read_bytes() == (other / "measurements.parquet").read_bytes()
    assert (one / "evidence.parquet").read_bytes() == (other / "evidence.parquet").read_bytes()


def test_measuring_again_gives_equal_bytes(copied: Path) -> None:
    folder = copied
    before = (folder / "measurements.parquet").read_bytes()
    kept = fedmem.read(folder).measurements
    measure(folder)
    pd.testing.assert_frame_equal(fedmem.read(folder).measurements, kept, check_exact=True)
    assert (folder / "measurements.parquet").read_bytes() == before


def test_run_interrupted_while_drawing_ends_with_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = tiny(**MEASURED | {"estimators": [{"kind": "memorisation"}]}, rounds=2)
    whole = run(scenario, out=tmp_path / "whole")

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fedmem.reporting.drawing.sheet", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(scenario, out=tmp_path / "again")
    again = run(scenario, out=tmp_path / "again")
    names = [{path.name for path in folder.iterdir()} for folder in (whole, again)]
    assert names[0] == names[1]
    assert (again / "reconstructions.png").read_bytes() == (whole / "reconstructions.png").read_bytes()


def test_another_seed_gives_other_numbers(tmp_path: Path) -> None:
    memorised = {"runs": 8, "estimators": [{"kind": "memorisation"}]}
    frames = [fedmem.read(run(tiny(**memorised, seed=seed), out=tmp_path)).measurements for seed in (1, 2)]
    first, second = (f[(f.metric == "memorisation") & (f.level == "global")].value.to_numpy() for f in frames)
    assert not np.array_equal(first, second)


def test_a_finished_run_is_not_repeated_unless_forced(tmp_path: Path) -> None:
    scenario = tiny(rounds=2)
    folder = run(scenario, out=tmp_path)
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert run(scenario, out=tmp_path) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    run(scenario, out=tmp_path, force=True)
    assert (folder / "manifest.json").stat().st_mtime_ns > stamp


def test_speed_settings_share_the_folder_and_others_do_not() -> None:
    assert tiny().id == tiny(speed={"executor": "one_by_one", "threads": 2}).id
    assert len({tiny().id, tiny(seed=9).id, tiny(rounds=5).id, tiny(strategy={"kind": "fedmedian"}).id}) == 4


def test_probes_leave_the_models_alone(measured: Path, tmp_path: Path) -> None:
    watched = fedmem.read(measured).params()
    unwatched = {**MEASURED, "probes": [], "estimators": [], "observe": {}}
    bare = fedmem.read(run(tiny(**unwatched, **SAVED), out=tmp_path)).params()
    assert watched.keys() == bare.keys()
    assert all((watched[name] == bare[name]).all() for name in bare)
    assert len(next(iter(bare.values()))) == 8


def test_the_data_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    hungry = tiny(injections=[{"kind": "typical", "per_client": 4000}])
    with pytest.raises(ScenarioError, match="rows"):
        run(hungry, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_probe_that_raises_ends_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tiny(probes=[{"kind": f"{__name__}:Broken"}])
    with pytest.raises(RunError, match=r"round 0, level global: probe .*Broken failed in observe: ZeroDivisionError"):
        run(broken, out=tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


class Vague(Broken):
    """A probe whose reading is about no model in particular."""

    def observe(self, transitions: Any, context: Any) -> Any:
        return [(None, Reading(metric="something", value=1.0))]


def test_reading_without_its_run_is_refused_in_the_probe(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"round 0, level global: probe .*Vague failed in .* a reading about no"):
        run(tiny(probes=[{"kind": f"{__name__}:Vague"}]), out=tmp_path)


DIVERGING = {"kind": "sgd", "lr": 1e30, "epochs": 1, "batch_size": 8}


def test_a_diverged_model_raises_an_alarm(tmp_path: Path) -> None:
    folder = run(tiny(client=DIVERGING, tolerate={"not_finite": True}), out=tmp_path)
    alarms = fedmem.read(folder).manifest["alarms"]
    assert any("diverged" in alarm and "client.lr" in alarm for alarm in alarms)
    assert not fedmem.read(run(tiny(), out=tmp_path)).manifest["alarms"]


def test_divergence_alarms_count_each_model_once_without_audit(tmp_path: Path) -> None:
    lost = tiny(client=DIVERGING, injections=[], rounds=2, tolerate={"not_finite": True})
    alarms = fedmem.read(run(lost, out=tmp_path)).manifest["alarms"]
    # 4 runs, 3 clients in each cohort; round 0 is sound, and test and population set tell of the same models
    assert [alarm.partition(" models")[0] for alarm in alarms] == [
        "round 2, level local: 12 of 12",
        "round 2, level global: 4 of 4",
    ]


def test_alarms_count_the_union_over_sets_and_infinity_as_well() -> None:
    def evidence(name: str, margins: list[list[float]], level: Level = "local") -> Evidence:
        margin = np.array(margins)
        place = np.arange(len(margin), dtype=np.int32)
        loss, right = np.zeros_like(margin), margin > 0
        return Evidence(
            round=1, level=level, set=name, run=place, client=place, loss=loss, margin=margin, correct=right
        )

    nan, inf = float("nan"), float("inf")
    blocks = (
        evidence("audit", [[1, 2], [nan, 1], [1, 1], [1, 1]]),
        evidence("test", [[1], [1], [-inf], [1]]),
        evidence("test", [[1]], level="global"),
    )
    simulated: Any = SimpleNamespace(bank=SimpleNamespace(evidence=blocks, participation=()))
    (alarm,) = _alarms(simulated)
    assert alarm.startswith("round 1, level local: 2 of 4 models have diverged")


def test_unwritable_place_is_an_error_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmem.execution.bank.simulate", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FolderError, match=r"file cannot hold the results: .*--out"):
        run(tiny(), out=tmp_path / "file")
    folder = tmp_path / "runs" / "tiny" / tiny().id
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("left over")
    with pytest.raises(FolderError, match="holds no finished run"):
        run(tiny(), out=tmp_path / "runs")


def test_an_empty_folder_is_no_finished_run(tmp_path: Path) -> None:
    (tmp_path / "tiny" / tiny(rounds=2, runs=2).id).mkdir(parents=True)
    assert fedmem.read(run(tiny(rounds=2, runs=2), out=tmp_path)).manifest["rows"]


def test_measure_refuses_a_changed_scenario_or_damaged_file(copied: Path) -> None:
    folder = copied
    before = (folder / "measurements.parquet").read_bytes()
    file = folder / "scenario.yaml"
    file.write_text(file.read_text().replace("bootstrap: 50", "bootstrap: 60"))
    with pytest.raises(FolderError, match=r"scenario\.yaml describes .* results are those of"):
        measure(folder)
    file.write_text(file.read_text().replace("bootstrap: 60", "bootstrap: 50"))
    (folder / "reconstructions.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"reconstructions\.npz is damaged"):
        measure(folder)
    assert (folder / "measurements.parquet").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_an_interrupted_run_leaves_nothing_that_looks_finished(how: signal.Signals, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("fedmem")),
        *("run", str(ROOT / "scenarios" / "quickstart.yaml"), "--out", str(tmp_path / "runs"), "--set", "rounds=2000"),
        *("--set", "observe.rounds=[]"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=_env())
    assert process.stderr is not None
    assert "training 32 runs in 2 shards" in process.stderr.readline()
    assert "round" in process.stderr.readline(), "the first line of progress: it is training"
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert not list(tmp_path.rglob("manifest.json"))
    if how is signal.SIGINT:
        assert process.returncode == 1
        assert "Traceback" not in said
        assert "fedmem run" in said


def _env() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("client", "executor", "reason"),
    [
        ("sgd", "stacked", None),
        ("sgd", "one_by_one", "executor one_by_one calls every step as it is; only executor stacked traces steps"),
        ("tests.declaring:Moody", "stacked", "called again, its operations give other values than the function"),
    ],
)
def test_manifest_states_whether_steps_were_traced_and_why_not(
    client: str, executor: str, reason: str | None, tmp_path: Path
) -> None:
    small = {"injections": [], "rounds": 2, "runs": 2, "client": {"kind": client}}
    folder = fedmem.run(tiny(**small, speed={"executor": executor, "workers": 1}), out=tmp_path)
    untraced = {} if reason is None else {"client.step": reason}
    assert fedmem.read(folder).manifest["tracing"] == {"steps": reason is None, "untraced": untraced}
