"""Tests of `fedmem/studies/sweep_file.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from fedmem.cli.main import app
from fedmem.errors import ScenarioError
from fedmem.studies.grid import cross, label_of
from fedmem.studies.sweep import sweep
from fedmem.studies.sweep_file import Axis, load_sweep, text_of_schema
from tests.studies.sweep_helpers import RATES, Write

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "sweeps"


def test_axes_become_settings() -> None:
    assert [label_of(one) for one in Axis(path="client.lr", range=(1, 4), steps=4).options()] == [
        "lr=1",
        "lr=2",
        "lr=3",
        "lr=4",
    ]
    assert Axis(path="runs", range=(2, 3), steps=5).options() == [(("runs", "2"),), (("runs", "3"),)]  # none twice
    paired = Axis(zip={"clients": (4, 8), "sampler.size": (2, 4)}).options()
    assert paired == [(("clients", "4"), ("sampler.size", "2")), (("clients", "8"), ("sampler.size", "4"))]
    nested = Axis(path="sampler", values=({"kind": "uniform", "size": 2},)).options()
    assert nested == [(("sampler", "{kind: uniform, size: 2}"),)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"axes": []}, "should have at least 1 entry"),
        ({"axes": [{"path": "client.lr"}]}, "should have one of values, range and zip, got none"),
        ({"axes": [{**RATES, "range": [1, 2]}]}, "got values and range"),
        ({"axes": [{"values": [1]}]}, "should name its path"),
        ({"axes": [{"path": "client.lr", "range": [2, 1]}]}, "should have a range that rises"),
        ({"axes": [{"path": "client.lr", "range": [0.0, 1.0], "scale": "log"}]}, "from above 0 on a log scale"),
        ({"axes": [{"zip": {"clients": [1], "rounds": [1, 2]}}]}, "as many values for each path"),
        ({"axes": [RATES, RATES]}, "should change client.lr in one place only"),
        ({"axes": [RATES], "set": {"client.lr": 1}}, "should change client.lr in one place only"),
        ({"axes": [RATES], "set": {"seed": 3}}, "should not set seed, which is taken from seeds"),
        ({"axes": [{"path": "seed", "values": [1]}]}, "--seeds"),
        ({"axes": [RATES], "seeds": "0-3"}, "a range such as 0:10"),
        ({"axes": [RATES], "colour": 1}, "unknown key"),
        ({"axes": [RATES], "search": {"study": "a", "trials": 0, "directions": {"x": "up"}}}, "maximize"),
        ({"axes": [{"path": "client.lr", "values": [-1]}]}, "client.lr"),
        ({"axes": [RATES], "base": "nowhere.yaml"}, "there is no such file"),
    ],
)
def test_wrong_sweep_files_are_refused_with_the_reason(
    write: Write, tmp_path: Path, content: dict[str, Any], says: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        sweep(write(**content), out=tmp_path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ("{pth: client.lr, values: [1]}", "axes[0].pth: unknown key (did you mean 'path'?); choose from: path, values"),
        ("{path: rounds, values: [2], step: 3}", "axes[0].step: unknown key (did you mean 'steps'?)"),
        ("{path: client.epoch, values: [1, 2]}", "client.epoch: unknown key (did you mean 'epochs'?); choose from: "),
        ("{path: clint.lr, values: [1, 2]}", "(did you mean 'client'?); choose from: name, "),
    ],
)
def test_unknown_keys_of_axes_are_answered_once(write: Write, tmp_path: Path, axis: str, says: str) -> None:
    file = write()
    file.write_text(f"base: tiny.yaml\naxes:\n- {axis}\n")
    with pytest.raises(ScenarioError) as error:
        sweep(file, out=tmp_path)
    (line,) = [line for line in str(error.value).splitlines() if says in line]
    assert line.startswith(f"{file}:3  ")


def test_unknown_keys_of_a_search_are_answered(write: Write, tmp_path: Path) -> None:
    file = write()
    file.write_text("base: tiny.yaml\naxes:\n- {path: client.lr, values: [1]}\nsearch:\n  study: a\n  trial: 3\n")
    with pytest.raises(ScenarioError) as error:
        sweep(file, out=tmp_path)
    assert f"{file}:6  search.trial: unknown key (did you mean 'trials'?); choose from: study, trials" in str(
        error.value
    )
    assert "search.trials: is missing; give it: settings that are tried in all" in str(error.value)


@pytest.mark.parametrize(
    ("seeds", "numbers"), [(3, (0, 1, 2)), ([3], (3,)), ([1, 4, 7], (1, 4, 7)), ("0:2", (0, 1)), ("3", (0, 1, 2))]
)
def test_seeds_of_a_sweep(write: Write, seeds: Any, numbers: tuple[int, ...]) -> None:
    assert load_sweep(write(axes=[RATES], seeds=seeds))[0].all_seeds == numbers


def test_mistakes_have_their_place_in_the_sweep_file(write: Write, tmp_path: Path) -> None:
    file = write()
    for text, says in (
        ("base: tiny.yaml\nset: {client.lr: -1}\naxes:\n- {path: rounds, values: [2]}\n", f"{file}:2  client.lr=-1"),
        ("base: tiny.yaml\naxes:\n- {path: rounds, values: [2]}\n- {path: client.lr, values: [-1]}\n", f"{file}:4  cl"),
        ("base: no.yaml\naxes:\n- {path: rounds, values: [2]}\n", f"{file}:1  base: there is no such file"),
    ):
        file.write_text(text)
        with pytest.raises(ScenarioError) as error:
            sweep(file, out=tmp_path)
        assert says in str(error.value)
        assert "--" not in str(error.value)


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ScenarioError, match="a sweep is a mapping"):
        sweep(tmp_path / "list.yaml")
    with pytest.raises(ScenarioError, match="no such file"):
        sweep(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_right(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == f"# fedmem sweep experiments/sweeps/{path.name}"
    assert lines[1] == "# yaml-language-server: $schema=./sweep.schema.json"
    assert "?" in lines[2]
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(text_of_schema()))
    plan, base = load_sweep(path)
    assert len(cross(base, plan.settings(), plan.all_seeds[:1], plan.overrides)) == len(plan.settings())


def test_the_schema_is_that_of_this_version() -> None:
    assert (FOLDER / "sweep.schema.json").read_text() == text_of_schema()
    shown = CliRunner().invoke(app, ["schema", "--sweep"])
    assert shown.output == text_of_schema()
