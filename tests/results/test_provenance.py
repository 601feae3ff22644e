"""Results are not taken for those of code that has changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.contracts.data import DatasetLoader, ReadsFiles
from fedmem.errors import FolderError
from fedmem.execution.run import run
from fedmem.results.provenance import (
    changed_inputs,
    commit,
    components_of,
    files_of,
    modules_of,
    provenance_of,
    provenance_of_measuring,
)
from fedmem.results.read import read
from fedmem.scenario.catalogue import field_names, kinds, load
from fedmem.scenario.scenario import Scenario
from fedmem.studies.compare import compare
from fedmem.studies.sweep import sweep
from tests.forked import Ended, fedmem
from tests.tiny import tiny

STRATEGY = '''"""A strategy of somebody's own."""

from dataclasses import dataclass

from flwr.serverapp.strategy import {kind}


@dataclass(frozen=True, kw_only=True)
class Mine:
    """Mine."""

    def make(self, cohort_size):
        return {kind}(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
'''


@dataclass(frozen=True, kw_only=True)
class Own:
    """A data set of somebody's own that does not say which files it reads."""

    source: str = "own.bin"

    def load(self, rng: np.random.Generator) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Both:
    """A data set of somebody's own that takes two."""

    first: DatasetLoader
    second: DatasetLoader

    def load(self, rng: np.random.Generator) -> Any: ...


def test_every_component_nested_ones_too_is_named() -> None:
    scenario = tiny(
        runs=8,
        probes=[{"kind": "leakage", "attack": {"kind": "inverting_gradients"}}],
        estimators=[{"kind": "membership", "attack": {"kind": "lira"}}],
    )
    found = components_of(scenario)
    assert {"leakage", "inverting_gradients", "membership", "lira", "synthetic", "fedavg", "sgd"} <= set(found)
    assert len(set(found.values())) == len(found)
    manifest: dict[str, Any] = {**provenance_of(scenario)}
    assert changed_inputs(scenario, manifest) == []
    assert changed_inputs(scenario, {**manifest, "components": found | {"lira": "0"}}) == ["lira"]


def test_a_changed_component_is_not_answered_with_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "own_strategy_for_provenance.py"
    module.write_text(STRATEGY.format(kind="FedAvg"))
    monkeypatch.syspath_prepend(str(tmp_path))
    scenario = tiny(runs=2, rounds=1, observe={"every": 1}, strategy={"kind": f"{module.stem}:Mine"})
    folder = run(scenario, out=tmp_path / "runs")
    assert run(scenario, out=tmp_path / "runs") == folder
    module.write_text(STRATEGY.format(kind="FedMedian"))
    with pytest.raises(FolderError, match=r"own_strategy_for_provenance:Mine was another; run again with --force"):
        run(scenario, out=tmp_path / "runs")
    before = read(folder).manifest["components"]
    assert run(scenario, out=tmp_path / "runs", force=True) == folder
    assert read(folder).manifest["components"] != before


def test_a_changed_phase_before_is_not_answered_with_old_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "own_strategy_of_first_phase.py"
    module.write_text(STRATEGY.format(kind="FedAvg"))
    monkeypatch.syspath_prepend(str(tmp_path))
    then = [{"rounds": 1, "strategy": {"kind": "fedavg"}}]
    mine = {"kind": f"{module.stem}:Mine"}
    scenario = tiny(runs=2, rounds=1, observe={"every": 1}, strategy=mine, then=then)
    run(scenario, out=tmp_path / "runs")
    module.write_text(STRATEGY.format(kind="FedMedian"))
    with pytest.raises(FolderError, match=r"own_strategy_of_first_phase:Mine was another; run again with --force"):
        run(scenario, out=tmp_path / "runs")


def test_flower_strategy_is_a_component_by_its_class() -> None:
    kind = "flwr.serverapp.strategy:FedYogi"
    assert kind in components_of(tiny(strategy={"kind": kind}))


def test_commit_marks_changed_files() -> None:
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        assert commit() is None
        return
    head = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert (commit() or "").rstrip("+") == head.stdout.strip()


QUICK: dict[str, Any] = {
    "runs": 2,
    "rounds": 1,
    "observe": {"every": 1},
    "injections": [{"kind": "random_pattern", "per_client": 1}],
    "probes": [{"kind": "utility"}],
}


def write_npz(file: Path, seed: int) -> None:
    """A table of 300 rows in two classes."""
    rng = np.random.default_rng(seed)
    np.savez(file, inputs=rng.random((300, 40), dtype=np.float32), targets=np.arange(300) % 2)


def on_arrays(folder: Path, **changes: Any) -> Scenario:
    return tiny(**QUICK, dataset={"kind": "npz", "path": str(folder / "mine.npz")}, **changes)


def test_a_run_is_not_served_after_its_data_have_changed(tmp_path: Path) -> None:
    write_npz(tmp_path / "mine.npz", 1)
    file = tmp_path / "tiny.yaml"
    file.write_text(on_arrays(tmp_path).to_yaml())
    command = ["run", str(file), "--out", str(tmp_path / "runs")]
    assert CliRunner().invoke(app, command).exit_code == 0
    folder = tmp_path / "runs" / "tiny" / on_arrays(tmp_path).id
    before = (folder / "measurements.parquet").read_bytes()
    # read, and touched, it is still the same
    (tmp_path / "mine.npz").touch()
    assert CliRunner().invoke(app, command).exit_code == 0
    write_npz(tmp_path / "mine.npz", 2)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert f"{folder} was made when the content of the files of npz (mine.npz) was another" in again.stderr
    assert (folder / "measurements.parquet").read_bytes() == before
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
    assert (folder / "measurements.parquet").read_bytes() != before
    assert CliRunner().invoke(app, command).exit_code == 0


def test_changed_file_of_equal_size_and_time_is_found(tmp_path: Path) -> None:
    write_npz(tmp_path / "mine.npz", 1)
    scenario, then = on_arrays(tmp_path), (tmp_path / "mine.npz").stat()
    manifest: dict[str, Any] = dict(provenance_of(scenario))
    content = bytearray((tmp_path / "mine.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "mine.npz").write_bytes(content)
    os.utime(tmp_path / "mine.npz", ns=(then.st_atime_ns, then.st_mtime_ns))
    assert (tmp_path / "mine.npz").stat().st_size == then.st_size
    assert changed_inputs(scenario, manifest) == ["the files of npz (mine.npz)"]
    (tmp_path / "mine.npz").unlink()
    assert changed_inputs(scenario, manifest) == ["the files of npz (mine.npz)"]


def test_comparisons_and_sweeps_do_not_serve_other_data(tmp_path: Path) -> None:
    write_npz(tmp_path / "mine.npz", 1)
    scenario, out = on_arrays(tmp_path), tmp_path / "runs"
    (tmp_path / "tiny.yaml").write_text(scenario.to_yaml())
    (tmp_path / "study.yaml").write_text("{base: tiny.yaml, axes: [{path: client.lr, values: [0.1, 0.3]}], seeds: 3}")
    vary = {"client.lr": [0.1, 0.3]}
    compare(scenario, vary=vary, seeds=[3], out=out, jobs=1)
    done = sweep(tmp_path / "study.yaml", out=out, jobs=1)
    frame = (done.path / "results.csv").read_text()
    write_npz(tmp_path / "mine.npz", 2)
    with pytest.raises(FolderError, match=r"the files of npz \(mine.npz\) was another"):
        compare(scenario, vary=vary, seeds=[3], out=out, jobs=1)
    for retry_failed in (False, True):  # finished runs also enter the frame where failed ones alone are run
        with pytest.raises(FolderError, match=r"the files of npz \(mine.npz\) was another"):
            sweep(tmp_path / "study.yaml", out=out, jobs=1, retry_failed=retry_failed)
    sweep(tmp_path / "study.yaml", out=out, jobs=1, force=True)
    assert (done.path / "results.csv").read_text() != frame


def picture(file: Path, grey: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(file)
    return file


def text(file: Path, content: str = "a text") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


Change = Callable[[Path], Any]
ARROW = "cache/hub/ylecun___mnist/mnist/0.0.0/abc/mnist-train.arrow"


@pytest.mark.parametrize(
    ("dataset", "prepare", "change", "named"),
    [
        (
            {"kind": "image_folder", "path": "pictures"},
            lambda at: [picture(at / "pictures" / label / f"{i}.png") for label in "ab" for i in range(3)],
            lambda at: picture(at / "pictures" / "b" / "1.png", 9),
            "image_folder (pictures/)",
        ),
        (
            {"kind": "image_folder", "path": "pictures"},
            lambda at: [picture(at / "pictures" / label / f"{i}.png") for label in "ab" for i in range(3)],
            lambda at: (at / "pictures" / "b" / "1.png").rename(at / "pictures" / "a" / "9.png"),
            "image_folder (pictures/)",
        ),
        (
            {"kind": "image_folder", "path": "pictures", "test_path": "others"},
            lambda at: [picture(at / where / label / "1.png") for label in "ab" for where in ("pictures", "others")],
            lambda at: picture(at / "others" / "b" / "1.png", 9),
            "image_folder (",
        ),
        (
            {"kind": "image_folder", "path": "pictures"},
            lambda at: [picture(at / "pictures" / "ab"[i] / "1.png", i) for i in range(2)],
            lambda at: [picture(at / "pictures" / "ab"[i] / "1.png", 1 - i) for i in range(2)],
            "image_folder (",
        ),
        (
            {"kind": "image_folder", "path": "pictures", "clients": "folder"},
            lambda at: [picture(at / "pictures" / who / label / "1.png") for label in "ab" for who in "xy"],
            lambda at: (at / "pictures" / "x").rename(at / "pictures" / "z"),
            "image_folder (pictures/)",
        ),
        (
            {"kind": "image_folder", "path": "pictures", "clients": "who.csv"},
            lambda at: [picture(at / "pictures" / label / "1.png") for label in "ab"] + [text(at / "who.csv", "x")],
            lambda at: text(at / "who.csv", "y"),
            "image_folder (",
        ),
        (
            {"kind": "csv", "path": "mine.csv"},
            lambda at: text(at / "mine.csv", "client,target\na,1\n"),
            lambda at: text(at / "mine.csv", "client,target\nb,1\n"),
            "csv (mine.csv)",
        ),
        (
            {"kind": "csv", "path": "mine.parquet", "test": "held.parquet"},
            lambda at: [text(at / f"{name}.parquet") for name in ("mine", "held")],
            lambda at: text(at / "held.parquet", "a test"),
            "csv (held.parquet, mine.parquet)",
        ),
        (
            {"kind": "text_table", "path": "texts.csv"},
            lambda at: text(at / "texts.csv"),
            lambda at: text(at / "texts.csv", "other"),
            "text_table (texts.csv)",
        ),
        (
            {"kind": "text_folder", "path": "texts"},
            lambda at: [text(at / "texts" / f"{name}.txt") for name in "abc"],
            lambda at: text(at / "texts" / "d.txt"),
            "text_folder (texts/)",
        ),
        (
            {"kind": "hub", "name": "csv", "files": ["a*.csv"], "test_files": ["b.csv"]},
            lambda at: [text(at / name) for name in ("a1.csv", "a2.csv", "b.csv")],
            lambda at: text(at / "a2.csv", "other"),
            "hub (",
        ),
        (
            {"kind": "hub", "name": "ylecun/mnist"},
            lambda at: text(at / ARROW),
            lambda at: text(at / ARROW, "other"),
            "hub (mnist-train.arrow)",
        ),
        (
            {"kind": "torchvision", "name": "CIFAR10"},
            lambda at: text(at / "cache" / "torchvision" / "cifar-10-batches-py" / "data_batch_1"),
            lambda at: text(at / "cache" / "torchvision" / "cifar-10-batches-py" / "data_batch_1", "other"),
            "torchvision (data_batch_1)",
        ),
        (
            {"kind": "tests.results.test_provenance:Own", "source": "own.bin"},
            lambda at: text(at / "own.bin"),
            lambda at: text(at / "own.bin", "other"),
            "tests.results.test_provenance:Own (own.bin)",
        ),
    ],
)
def test_changed_data_file_is_named_by_its_dataset(
    dataset: dict[str, Any],
    prepare: Change,
    change: Change,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if dataset["kind"] == "torchvision":
        pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDMEM_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path)
    text(tmp_path / "another.txt")
    scenario = tiny(dataset=dataset, injections=[])
    manifest: dict[str, Any] = dict(provenance_of(scenario))
    text(tmp_path / "another.txt", "other")
    assert changed_inputs(scenario, manifest) == []
    change(tmp_path)
    (said,) = changed_inputs(scenario, manifest)
    assert said.startswith(f"the files of {named}")


def test_files_of_one_name_in_two_folders_both_count(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_npz(tmp_path / name / "mine.npz", 1)
    datasets = [{"kind": "npz", "path": str(tmp_path / name / "mine.npz")} for name in "ab"]
    both = {"kind": "tests.results.test_provenance:Both", "first": datasets[0], "second": datasets[1]}
    scenario = tiny(dataset=both, injections=[])
    for name in "ab":
        manifest: dict[str, Any] = dict(provenance_of(scenario))
        write_npz(tmp_path / name / "mine.npz", 2)
        assert changed_inputs(scenario, manifest) == ["the files of npz (mine.npz)"]


def test_estimates_made_again_are_of_the_code_of_today() -> None:
    scenario = tiny(
        runs=8,
        probes=[{"kind": "utility"}],
        estimators=[{"kind": "memorisation"}, {"kind": "membership", "attack": {"kind": "lira"}}],
    )
    now: dict[str, Any] = dict(provenance_of(scenario))
    unchanged = provenance_of_measuring(scenario, now)
    assert changed_inputs(scenario, now | unchanged) == []
    # only an estimator was another: today's code trains and estimates the same, so the run is its own again
    then = now | {"components": now["components"] | {"memorisation": "old", "lira": "old"}}
    assert changed_inputs(scenario, then) == ["lira", "memorisation"]
    assert changed_inputs(scenario, now | provenance_of_measuring(scenario, then)) == []
    # what trained the run was another: neither version may serve it
    then = now | {"components": now["components"] | {"sgd": "old"}, "modules": {"fedmem": "old"}}
    mixed = now | provenance_of_measuring(scenario, then)
    assert changed_inputs(scenario, mixed) == ["sgd", "fedmem"]
    assert "old" not in (mixed["components"]["sgd"], mixed["modules"]["fedmem"])


def test_every_dataset_with_a_path_declares_its_files() -> None:
    places = {"path", "root", "files", "test_files", "folder"}
    reading = [kind for kind in kinds("dataset") if places & set(field_names("dataset", kind) or ())]
    assert set(reading) == {"npz", "image_folder", "csv", "text_table", "text_folder", "labelled_texts"} | {
        "hub",
        "torchvision",
    }
    assert all(isinstance(load("dataset", kind)(), ReadsFiles) for kind in reading)


def command(*words: str, at: Path) -> Ended:
    """`fedmem` as a shell starts it in this folder, whose modules nobody has imported."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("own_client", "own_package")]:
        del sys.modules[name]
    return fedmem(*words, at=at)


def test_run_is_refused_after_an_imported_module_has_changed(own: Path) -> None:
    (own / "tiny.yaml").write_text(tiny(**QUICK).to_yaml())
    words = ("run", "tiny.yaml", "--set", "client={kind: own_client:Mine, batch_size: 8}", "--quiet")
    first = command(*words, at=own)
    assert first.returncode == 0, first.stderr
    before = (own / first.stdout.strip() / "evidence.parquet").read_bytes()
    served = command(*words, at=own)
    assert (served.returncode, served.stdout) == (0, first.stdout)
    # the default of a field would change the id: what is written there is a number of the scenario
    (own / "own_package" / "deep.py").write_text("RATE = 0.1  # the same number\n")
    again = command(*words, at=own)
    assert again.returncode == 2
    assert "was made when the content of module own_package.deep was another; run again with --force" in again.stderr
    assert (own / first.stdout.strip() / "evidence.parquet").read_bytes() == before


def test_a_run_without_a_word_on_files_is_not_served(tmp_path: Path) -> None:
    write_npz(tmp_path / "mine.npz", 1)
    scenario = on_arrays(tmp_path)
    assert files_of(scenario)
    manifest = {"components": components_of(scenario), "modules": modules_of(scenario)}
    assert changed_inputs(scenario, manifest) == ["the files of npz (mine.npz)"]
    assert set(changed_inputs(scenario, {})) > {"npz", "fedmem", "the files of npz (mine.npz)"}


def test_record_noise_is_found_before_the_folder_is_named(tmp_path: Path) -> None:
    client = {"kind": "dp_sgd", "lr": 0.2, "clip": 1.0, "noise_multiplier": None}
    target = tiny(**QUICK, client=client, privacy={"target_epsilon": 8.0, "delta": 1e-4})
    (tmp_path / "tiny.yaml").write_text(target.to_yaml())
    words = ["run", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    (folder,) = [path for path in (tmp_path / "runs" / "tiny").iterdir() if not path.name.startswith(".")]
    assert str(folder) in done.stdout
    when = (folder / "manifest.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, words)
    assert (again.exit_code, (folder / "manifest.json").stat().st_mtime_ns) == (0, when)
    assert "has been run already" in again.stderr
