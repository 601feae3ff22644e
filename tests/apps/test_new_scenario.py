"""Tests of `fedmem/apps/new_scenario.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedmem.apps import new_scenario
from fedmem.apps.new_scenario import write_new
from fedmem.errors import ScenarioError
from fedmem.scenario.loading import load_scenario
from fedmem.scenario.scenario import Scenario
from fedmem.shipped.files import scenario_names


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_scenario, "write_schema", lambda path: path)
    return tmp_path


@pytest.mark.parametrize("source", ["quickstart", "demo", "own_csv", "text_quickstart"])
def test_shipped_scenarios_can_be_started_from(source: str) -> None:
    starts_from(source)


@pytest.mark.slow
@pytest.mark.parametrize("source", scenario_names())
def test_every_shipped_scenario_can_be_started_from(source: str) -> None:
    starts_from(source)


def starts_from(source: str) -> None:
    (file, _) = write_new("mine", source)
    assert load_scenario(file).dump() == load_scenario(source).dump() | {"name": "mine"}
    lines = file.read_text().splitlines()
    assert lines[0] == "# fedmem run mine.yaml"
    assert not [line for line in lines if line.startswith("# Takes about")]
    assert max(len(line) for line in lines if line.startswith("#")) <= 120


def test_each_key_has_its_comment_above() -> None:
    (file, _) = write_new("mine")
    lines = file.read_text().splitlines()
    keys = {line.partition(":")[0]: i for i, line in enumerate(lines) if line[:1].isalpha()}
    assert {"rounds", "sampler", "probes", "name"} <= keys.keys()
    assert all(lines[i - 1].startswith("# ") for i in keys.values())
    assert "(fedmem list sampler)" in lines[keys["sampler"] - 1]
    assert lines[keys["rounds"] - 1] == "# Rounds of training."
    others = {
        line.split()[1].rstrip(":") for line in lines[lines.index("# Further keys and their defaults:") :] if line
    }
    assert set(Scenario.model_fields) <= others | keys.keys()


def test_files_of_any_form_can_be_started_from() -> None:
    for name, text in {
        "flow": "{rounds: 3, clients: 4, dataset: {kind: synthetic}, model: {kind: mlp}}",
        "named": "{name: other, rounds: 3, clients: 4, dataset: {kind: synthetic}, model: {kind: mlp}}",
        "unnamed": "rounds: 3\nclients: 4\ndataset: {kind: synthetic}\nmodel: {kind: mlp}\n",
        "crlf": "rounds: 3\r\nname: other\r\nclients: 4\r\ndataset: {kind: synthetic}\r\nmodel: {kind: mlp}\r\n",
    }.items():
        Path(f"{name}.yaml").write_bytes(text.encode())
        write_new(f"from_{name}", name)
        scenario = load_scenario(f"from_{name}.yaml")
        assert (scenario.name, scenario.rounds, scenario.clients) == (f"from_{name}", 3, 4)


def test_paths_are_names_too() -> None:
    Path("mine").mkdir()
    assert write_new("mine/first.yml")[0] == Path("mine/first.yml")
    assert load_scenario("mine/first.yml").name == "first"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstart", "choose another, such as my_quickstart"),
        ("nowhere/mine", "create nowhere first"),
        ("a b", "should be at most 100 letters"),
        ("x" * 200, "should be at most 100 letters"),
        ("", "is no name"),
        ("link", "never overwritten"),
    ],
)
def test_unusable_names_are_refused(name: str, message: str) -> None:
    Path("link.yaml").symlink_to("elsewhere.yaml")
    with pytest.raises(ScenarioError, match=message):
        write_new(name)
    assert [path.name for path in Path().iterdir()] == ["link.yaml"]


def test_wrong_sources_are_refused_and_nothing_is_written() -> None:
    Path("wrong.yaml").write_text("{rounds: 0}")
    for source, message in (("wrong", "clients"), ("quikstart", "did you mean 'quickstart'"), ("-", "from a file")):
        with pytest.raises(ScenarioError, match=message):
            write_new("mine", source)
    assert not Path("mine.yaml").exists()


def test_existing_schema_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_scenario, "write_schema", _forbidden)
    Path("scenario.schema.json").write_text(json.dumps({"mine": True}))
    assert write_new("mine") == [Path("mine.yaml")]
    assert json.loads(Path("scenario.schema.json").read_text()) == {"mine": True}


def _forbidden(path: Path) -> Path:
    raise AssertionError(path)
