"""What a comparison crosses: settings by seeds, all that is wrong at once, and nothing else that differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fedmem.contracts.families import kind_of
from fedmem.errors import ScenarioError
from fedmem.execution.grouping import data_of
from fedmem.strategies.fedavg import FedAvg
from fedmem.studies.grid import cross, label_of, parse_seeds, parse_vary, settings_of
from tests.tiny import tiny


@dataclass(frozen=True, kw_only=True)
class Picky:
    """Averages, and wants clients of another kind."""

    client: ClassVar[str] = "tests.toys:Deaf"

    def make(self, cohort_size: int) -> Any:
        return FedAvg().make(cohort_size)


def said(error: pytest.ExceptionInfo[ScenarioError]) -> str:
    return str(error.value)


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["strategy.kind"], "should be path=value,value"),
        (["strategy.kind=fedavg,"], "should be path=value,value"),
        (["client.lr=1,2", "client.lr=3"], "client.lr is varied twice"),
        (["client.lr=1,1"], "1 is given twice"),
        (["seed=1,2"], "--seeds"),
        (["speed.workers=1,2"], "it changes no result"),
    ],
)
def test_invalid_vary_options_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        parse_vary(texts)
    assert says in said(error)


@pytest.mark.parametrize(
    "text", ["", "a", "1:", "3:3", "1,1", "0:3,2", "-1", "1.5", str(2**63), "0:1000000", "0", 0, [], [1, 1], [-1]]
)
def test_invalid_seeds_are_refused(text: Any) -> None:
    with pytest.raises(ScenarioError, match="--seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        *((given, (0, 1, 2, 3, 4)) for given in ("5", 5, "0:5")),
        *((given, (1, 4, 7)) for given in ("1,4,7", [1, 4, 7])),
        *((given, (5,)) for given in ("5:6", "[5]", [5])),
        (range(2, 4), (2, 3)),
    ],
)
def test_seeds_are_a_count_a_range_or_a_list(given: Any, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(given) == seeds


def test_settings_differ_in_what_varies_and_in_nothing_else() -> None:
    settings = settings_of(
        parse_vary(["strategy.kind=fedavg,fedmedian", "sampler={kind: uniform, size: 2},{kind: everyone}"])
    )
    cells = cross(tiny(), settings, (5, 6), ["client.lr=0.7"])
    assert [(label_of(cell.setting), cell.seed) for cell in cells[:3]] == [
        ("fedavg, uniform size=2", 5),
        ("fedavg, uniform size=2", 6),
        ("fedavg, everyone", 5),
    ]
    dumps = [cell.scenario.dump() for cell in cells]
    for cell, dump in zip(cells, dumps, strict=True):
        assert dump["seed"] == cell.seed
        assert dump["client"]["lr"] == 0.7
        rest = {name: value for name, value in dump.items() if name not in ("strategy", "sampler", "seed")}
        assert rest == {name: dumps[0][name] for name in rest}
    assert len({data_of(cell.scenario) for cell in cells if cell.seed == 5}) == 1
    assert len({cell.scenario.id for cell in cells}) == 8


def test_files_scenarios_and_what_stands_in_them_agree(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny().to_yaml())
    settings = settings_of({"strategy.kind": ["fedavg", "krum"]})
    from_file, from_object = cross(file, settings, (1,)), cross(tiny(), settings, (1,))
    assert [cell.scenario.id for cell in from_file] == [cell.scenario.id for cell in from_object]


def test_all_grid_mistakes_are_reported_once() -> None:
    settings = settings_of({"strategy.kind": ["fedavg", "nothing"], "client.lr": ["0.1", "-1"], "client.x": ["1"]})
    with pytest.raises(ScenarioError) as error:
        cross(tiny(), settings, (0, 1, 2))
    lines = said(error).splitlines()
    assert len(lines) == len(set(lines)) == 3
    assert "--vary strategy.kind=nothing" in said(error)
    assert "--vary client.lr=-1" in said(error)


def test_settings_that_come_to_the_same_scenario_are_refused() -> None:
    with pytest.raises(ScenarioError, match="fedavg and fedavg weighting=size are the same scenario"):
        cross(tiny(), settings_of({"strategy": ["{kind: fedavg}", "{kind: fedavg, weighting: size}"]}), (0,))


def test_strategy_gets_its_client_unless_one_is_chosen() -> None:
    settings = settings_of({"strategy.kind": ["fedavg", "tests.studies.test_grid:Picky"]})
    plain, picky = cross(tiny(), settings, (0,))
    assert kind_of(plain.scenario.client) == "sgd"
    assert type(picky.scenario.client).__name__ == "Deaf"
    assert vars(picky.scenario.client)["lr"] == 0.2  # what both clients know stays as it is in the file
    assert label_of(picky.setting) == "Picky"
    there = cross(tiny(client={"kind": "tests.toys:Deaf"}), settings, (0,))
    assert [type(cell.scenario.client).__name__ for cell in there] == ["Deaf", "Deaf"]
    with pytest.raises(ScenarioError, match=r"client\.kind.*Deaf"):
        cross(tiny(), settings, (0,), ["client.kind=sgd"])
    with pytest.raises(ScenarioError, match=r"client\.kind.*Deaf"):
        cross(tiny(), settings_of({"strategy.kind": ["tests.studies.test_grid:Picky"], "client.kind": ["sgd"]}), (0,))
