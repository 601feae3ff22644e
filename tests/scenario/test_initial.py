"""The section `initial_weights`: words or a mapping, places of mistakes, and paths beside the scenario's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.errors import ScenarioError
from fedmem.scenario.initial import InitialWeights, beside_file
from fedmem.scenario.loading import load_scenario, parse_scenario
from tests.narrowing import instance
from tests.tiny import tiny

TEXT = "{rounds: 1, clients: 2, dataset: {kind: synthetic}, model: {kind: mlp}, initial_weights: %s}"


def test_the_section_survives_its_dump() -> None:
    scenario = parse_scenario(TEXT % "{from: a.pt, except: [output.*]}")
    assert scenario.dump()["initial_weights"] == {
        "from": "a.pt",
        "round": None,
        "run": None,
        "except": ["output.*"],
        "prefix": "",
    }
    assert parse_scenario(scenario.to_yaml()) == scenario
    ids = {parse_scenario(TEXT % text).id for text in ("shared", "per_run", "{from: a.pt}", "{from: a.pt, run: 1}")}
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("per_rn", "initial_weights", "did you mean 'per_run'"),
        ("null", "initial_weights", "'shared' or 'per_run'"),
        ("{from: ''}", "initial_weights.from", "at least 1"),
        ("{round: 1}", "initial_weights.from", "is missing"),
        ("{from: a, run: -1}", "initial_weights.run", "greater than or equal to 0"),
        ("{from: a, excep: []}", "initial_weights.excep", "did you mean 'except'"),
        ("{source: a, from: a}", "initial_weights.source", "choose from: from, round, run, except, prefix"),
    ],
)
def test_mistakes_are_placed_inside_of_the_section(text: str, place: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(TEXT % text)
    (problem,) = caught.value.problems
    assert problem.path == place
    assert said in problem.message


def test_a_relative_path_is_looked_for_here_and_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "w.pt").write_bytes(b"")
    (tmp_path / "study" / "mine.yaml").write_text(TEXT % "{from: w.pt}")
    monkeypatch.chdir(tmp_path)

    def source(*overrides: str) -> str:
        return instance(load_scenario("study/mine.yaml", overrides).initial_weights, InitialWeights).source

    assert source() == "study/w.pt"
    assert source("initial_weights.from=v.pt") == "v.pt"
    (tmp_path / "w.pt").write_bytes(b"")
    assert source() == "w.pt"
    assert beside_file({"initial_weights": "shared"}, "study/mine.yaml") is None


def test_twins_need_more_than_weights_of_a_file() -> None:
    with pytest.raises(ScenarioError, match="twins would be the same run"):
        tiny(runs=8, twins=2, batches="shared", initial_weights={"from": "a.pt"})
