"""Runs side by side."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.errors import FolderError, RunError
from fedmem.execution.run import run
from fedmem.reporting import run_list
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, rows
from tests.results.read_helpers import bank, write
from tests.tiny import tiny

MEMORISATION = {
    "injections": [{"kind": "typical"}],
    "estimators": [{"kind": "memorisation"}],
    "probes": [{"kind": "utility"}],
    "rounds": 2,
}


def test_equal_scenarios_have_empty_labels() -> None:
    assert run_list.labels_of([{"name": "a", "seed": 1}]) == [""]
    assert run_list.labels_of([{"name": "a", "seed": 1, "speed": {"threads": 1}}, {"name": "b", "seed": 1}]) == ["", ""]


def test_equal_kinds_show_their_fields_and_other_kinds_hide_them() -> None:
    one = tiny(client={"kind": "sgd", "lr": 0.1}).dump()
    two = tiny(client={"kind": "sgd", "lr": 0.2}, strategy={"kind": "fedmedian"}, observe={"rounds": [1]}).dump()
    first, second = run_list.labels_of([one, two])
    assert first == "client.lr=0.1 strategy.kind=fedavg observe.every=2 observe.rounds=[]"
    assert second == "client.lr=0.2 strategy.kind=fedmedian observe.every=null observe.rounds=[1]"


def test_lists_of_components_are_labelled_by_kinds_or_by_place() -> None:
    base = tiny()
    fewer = tiny(injections=[{"kind": "typical"}])
    assert run_list.labels_of([base.dump(), fewer.dump()]) == [
        "injections=[random_pattern,mislabelled,typical]",
        "injections=[typical]",
    ]
    more = tiny(injections=[{"kind": "typical", "copies": 3}])
    assert run_list.labels_of([fewer.dump(), more.dump()]) == ["injections[0].copies=1", "injections[0].copies=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs")
    for seed in (5, 6):
        run(tiny(seed=seed, **MEMORISATION), out=place)
    run(tiny(name="another", **MEMORISATION), out=place)
    return place


def test_runs_are_listed_by_name_with_their_differences(folder: Path) -> None:
    found = run_list.finished_runs(folder)
    assert [(one.run.manifest["name"], one.label) for one in found] == [
        ("another", ""),
        ("tiny", "seed=5"),
        ("tiny", "seed=6"),
    ]
    assert all(one.seconds > 0 for one in found)
    value = read(found[1].run.path).measurements
    shown = value[(value.metric == "memorisation") & (value.scope == "summary") & (value.level == "global")]
    (mean,) = shown[(shown.subject == "typical") & (shown.statistic == "") & (shown.place == "")].value
    assert "memorisation of typical: local " in found[1].numbers[1]
    assert f"global {mean:.3f}".replace("-", "−") in found[1].numbers[1]
    assert "test accuracy" in found[1].numbers[0]
    assert all("[" in text and "(n " in text for text in found[1].numbers), "no number without interval and n"


def test_runs_command_lists_runs_within_100_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder.parent)
    done = CliRunner().invoke(app, ["runs", folder.name])
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{folder.name}/another/")
    assert "  seed=6" in lines
    assert max(map(len, lines)) <= 100
    assert CliRunner().invoke(app, ["runs", str(next((folder / "tiny").iterdir()))]).stdout.count("\n") == 3
    (tmp_path / "empty").mkdir()
    assert "no finished run" in CliRunner().invoke(app, ["runs", str(tmp_path / "empty")]).stderr
    done = CliRunner().invoke(app, ["runs", "nowhere"])
    assert done.exit_code == 2
    with pytest.raises(FolderError, match="no folder"):
        run_list.finished_runs(Path("nowhere"))


@pytest.mark.parametrize("file", ["manifest.json", "measurements.parquet"])
def test_a_damaged_run_is_named_and_the_others_are_listed(file: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "runs")
    bad = next((tmp_path / "runs" / "another").iterdir())
    (bad / file).write_bytes(b"nothing")
    done = CliRunner().invoke(app, ["runs", str(tmp_path / "runs")])
    assert done.exit_code == 1
    assert "seed=5" in done.stdout
    assert "seed=6" in done.stdout
    assert str(bad) not in done.stdout
    assert f"{bad / file} is damaged" in done.stderr
    with pytest.raises(RunError, match="is damaged"):
        run_list.finished_runs(tmp_path / "runs")


def test_runs_show_auc_and_exposure_at_both_levels(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(), measurements=rows(), scenario_yaml=SCENARIO)
    numbers = list(run_list._numbers(Summary(read(tmp_path / "run"))))
    starts = [text.partition(" [")[0] for text in numbers]
    assert [start for start in starts if "LiRA AUC" in start] == [
        "LiRA AUC of pattern: local 1.050",
        "LiRA AUC of typical-own: local 0.750",
    ]
    assert "exposure of pattern: local 4.25" in starts
    assert all(", global " in text for text in numbers[1:])
    assert not [text for text in numbers if "TPR" in text]


def test_runs_without_a_guarantee_show_nothing_of_privacy() -> None:
    one, two = {"privacy": {"delta": 1e-5}, "seed": 0}, {"privacy": {"delta": 1e-3}, "seed": 1}
    assert run_list.labels_of([one, two], [False, False]) == ["seed=0", "seed=1"]
    assert run_list.labels_of([one, two], [True, False]) == ["privacy.delta=1e-05 seed=0", "seed=1"]
