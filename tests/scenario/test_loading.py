"""Tests of `fedmem/scenario/loading.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.errors import Problem
from fedmem.partitions.dirichlet import Dirichlet
from fedmem.scenario.loading import load_scenario, parse_scenario
from tests.narrowing import instance
from tests.scenario.scenario_helpers import SMALL, problems

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"


def test_quickstart_is_loaded_with_its_written_values() -> None:
    scenario = load_scenario(QUICKSTART)
    assert (scenario.name, scenario.runs, scenario.rounds, scenario.clients) == ("quickstart", 32, 40, 20)
    assert scenario.observed_rounds == (0, 5, 10, 15, 20, 25, 30, 35, 36, 37, 38, 39, 40)
    assert instance(scenario.partition, Dirichlet).alpha == 0.5
    assert [injection.name for injection in scenario.injections] == ["random_pattern", "mislabelled", "typical"]
    assert QUICKSTART.read_text().startswith("# fedmem run scenarios/quickstart.yaml\n")


def test_all_problems_are_reported_at_once_with_their_lines() -> None:
    text = (
        SMALL.replace("runs: 4", "runs: 5").replace("  lr: 0.1", "  lr: fast").replace("kind: typical", "kind: tipical")
    )
    found = problems(text + "seeds: 3\nobserve: {rounds: [99]}\n")
    assert [(problem.path, problem.line) for problem in found] == [
        ("runs", 1),
        ("client.lr", 8),
        ("injections[0].kind", 11),
        ("seeds", 15),
        ("observe.rounds[0]", 16),
    ]


def test_a_mistake_in_one_field_does_not_make_others_wrong() -> None:
    # The cohort cannot be compared with a number of clients that is not known.
    text = SMALL.replace("clients: 3", "clients: three") + "sampler: {kind: uniform, size: 9}\n"
    assert [problem.path for problem in problems(text)] == ["clients"]


def test_problems_found_later_get_their_line() -> None:
    scenario = parse_scenario(SMALL, "small.yaml", ["client.lr=0.3"])
    line = scenario.place(Problem(path="injections[0].per_client", message="too many"))
    assert (line.source, line.line) == ("small.yaml", 11)
    assert scenario.locate("client.lr") == ("--set client.lr=0.3", None)
    assert scenario.locate("injections") == ("small.yaml", 10)
    assert scenario.locate("population") == ("small.yaml", None)
    assert scenario.locate("") == ("small.yaml", None)
    known = Problem(path="runs", message="x", source="other", line=3)
    assert scenario.place(known) is known


def test_the_name_is_the_stem_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "my-study.v2.yaml").write_text(SMALL)
    assert load_scenario(tmp_path / "my-study.v2.yaml").name == "my-study.v2"
