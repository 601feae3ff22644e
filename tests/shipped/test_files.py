"""Tests of `fedmem/shipped/files.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fedmem
from fedmem.errors import ScenarioError
from fedmem.scenario.loading import load_scenario
from fedmem.shipped import files
from fedmem.studies.grid import cross, settings_of
from fedmem.studies.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_file_of_the_repository_has_a_name() -> None:
    assert files.scenario_names() == tuple(sorted(path.stem for path in (ROOT / "scenarios").glob("*.yaml")))
    assert files.folder() == ROOT / "scenarios"


def test_wheel_uses_the_folder_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a folder of that name lies beside the package."""
    package = tmp_path / "site" / "fedmem" / "shipped"
    for folder in (package / "scenarios", tmp_path / "site" / "scenarios"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "files.py"))
    assert files.folder.__wrapped__() == package / "scenarios"
    (package / "scenarios").rmdir()
    assert files.folder.__wrapped__() == tmp_path / "site" / "scenarios"


def test_names_and_paths_give_one_scenario() -> None:
    by_name, by_path = load_scenario("quickstart"), load_scenario(ROOT / "scenarios" / "quickstart.yaml")
    assert by_name == by_path
    assert by_name.id == by_path.id
    assert by_name.notes == ()


@pytest.mark.parametrize("file", ["quickstart", "quickstart.yaml"])
def test_file_of_the_current_folder_wins_and_is_named(file: str) -> None:
    Path(file).write_text("{rounds: 3, clients: 4, dataset: {kind: synthetic}, model: {kind: mlp}}")
    scenario = load_scenario("quickstart")
    assert scenario.rounds == 3
    (note,) = scenario.notes
    assert f"the file {file} of this folder" in note
    assert str(ROOT / "scenarios" / "quickstart.yaml") in note


def test_folder_of_that_name_does_not_hide_the_scenario() -> None:
    Path("quickstart").mkdir()
    assert files.find_scenario("quickstart") == ROOT / "scenarios" / "quickstart.yaml"
    assert files.clash_note("quickstart") == ""


@pytest.mark.parametrize("name", ["./quickstart", "mine/quickstart", "quickstart.yaml", "quickstart.yml", "-", "", "."])
def test_paths_and_standard_input_are_no_names(name: str) -> None:
    assert str(files.find_scenario(name)) == str(Path(name))


def test_own_file_without_a_suffix_needs_none() -> None:
    text = "{rounds: 3, clients: 4, dataset: {kind: synthetic}, model: {kind: mlp}}"
    Path("mine.yaml").write_text(text)
    scenario = load_scenario("mine")
    assert (scenario.name, scenario.rounds, scenario.notes) == ("mine", 3, ())


@pytest.mark.parametrize("name", ["quikstart", "quikstart.yaml"])
def test_unknown_names_are_refused_with_near_ones(name: str) -> None:
    with pytest.raises(ScenarioError, match=r"no such file \(did you mean 'quickstart'\?\)"):
        load_scenario(name)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises((ScenarioError, ValueError)):
        load_scenario(name)


def test_comparisons_accept_names() -> None:
    cells = cross("quickstart", settings_of({"client.lr": ["0.1", "0.2"]}), [0])
    assert [cell.scenario.name for cell in cells] == ["quickstart"] * 2


def test_base_of_a_sweep_may_be_a_name() -> None:
    Path("mine.yaml").write_text("{base: quickstart, axes: [{path: client.lr, values: [0.1]}]}")
    assert load_sweep("mine.yaml")[1] == ROOT / "scenarios" / "quickstart.yaml"
    Path("quickstart").write_text("{}")  # relative to the sweep file, as before
    assert load_sweep("mine.yaml")[1] == Path("quickstart")
    Path("mine.yaml").write_text("{base: quikstart, axes: [{path: client.lr, values: [0.1]}]}")
    with pytest.raises(ScenarioError, match="a name such as quickstart"):
        load_sweep("mine.yaml")


def test_shipped_data_are_read_where_the_folder_has_none(empty_folder: Path) -> None:
    shipped = ROOT / "scenarios" / "patients.csv"
    assert files.data_path("scenarios/patients.csv") == shipped
    scenario = load_scenario("own_csv", ["runs=8", "rounds=1"])
    folder = fedmem.run(scenario, out=empty_folder)
    assert fedmem.read(folder).manifest["files"].keys() == {"csv (patients.csv)"}
    Path("scenarios").mkdir()
    Path("scenarios/patients.csv").write_text("own")
    assert files.data_path("scenarios/patients.csv") == Path("scenarios/patients.csv")


@pytest.mark.parametrize(
    "name", ["patients.csv", "scenarios/nothing.csv", "scenarios/../LICENSE", "../scenarios/x.csv"]
)
def test_no_other_data_are_looked_for(name: str) -> None:
    assert files.data_path(name) == Path(name)
    assert not os.path.exists(name)
