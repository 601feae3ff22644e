"""Tests of `fedmem/studies/study.py`: cells, prices, and pieces that continue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedmem.errors import ScenarioError
from fedmem.studies.study import Study, StudyOptions, cells_of, price, run_study, write_study
from tests.tiny import tiny


@dataclass(frozen=True)
class Arm:
    """An argument with a word."""

    name: str


def work(arm: Arm, seed: int, out: Path, settings: Any) -> tuple[str, int, Any]:
    return arm.name, seed, settings


STUDY = Study(
    question="Is it?",
    seeds=(4, 5),
    cells=lambda seeds: [(Arm(name), seed) for seed in seeds for name in ("first", "second")],
    work=work,
    scenarios=lambda arm, seed, settings: [tiny(seed=seed, runs=2)],
    tables=lambda results: {"gates": pd.DataFrame(results, columns=["arm", "seed", "settings"])},
)


def test_cells_are_chosen_by_seed_and_word() -> None:
    assert [(arm.name, seed) for arm, seed in cells_of(STUDY, StudyOptions())] == [
        ("first", 4),
        ("second", 4),
        ("first", 5),
        ("second", 5),
    ]
    chosen = cells_of(STUDY, StudyOptions(seeds=(7,), only=("second",)))
    assert [(arm.name, seed) for arm, seed in chosen] == [("second", 7)]
    with pytest.raises(ScenarioError, match="did you mean 'second'"):
        cells_of(STUDY, StudyOptions(only=("secnd",)))


def test_words_of_one_argument_are_alternatives() -> None:
    study = replace(STUDY, cells=lambda seeds: [(Arm(name), data, 0) for name in "abc" for data in "xyz"])

    def chosen(*only: str) -> list[str]:
        return [arm.name + data for arm, data, _ in cells_of(study, StudyOptions(only=only))]

    assert chosen("a") == ["ax", "ay", "az"]
    assert chosen("a", "c", "y") == ["ay", "cy"]
    assert len(chosen()) == 9


def test_seeds_of_a_study_without_any_are_an_error() -> None:
    study = replace(STUDY, seeds=(), cells=lambda seeds: [(Arm("first"), 0)])
    assert len(cells_of(study, StudyOptions())) == 1
    with pytest.raises(ScenarioError, match="has no seeds"):
        cells_of(study, StudyOptions(seeds=(1,)))


def test_results_are_in_the_order_of_cells(tmp_path: Path) -> None:
    lines: list[str] = []
    options = StudyOptions(out=tmp_path / "out", jobs=2, settings=("runs=2",))
    tables = run_study(STUDY, options, lines.append)
    assert tables is not None
    assert tables["gates"].arm.tolist() == ["first", "second"] * 2
    assert tables["gates"].seed.tolist() == [4, 4, 5, 5]
    assert set(tables["gates"].settings) == {("runs=2",)}
    assert len(lines) == 4
    assert lines[-1].startswith("4 of 4 cells")


def test_no_cell_begins_when_the_time_is_over(tmp_path: Path) -> None:
    assert run_study(STUDY, StudyOptions(out=tmp_path, hours=0.0)) is None


def test_price_counts_each_scenario_once(tmp_path: Path) -> None:
    cost = price(STUDY, StudyOptions(out=tmp_path))
    assert (cost.scenarios, cost.finished, cost.runs) == (2, 0, 4)
    assert cost.steps > 0


def test_tables_and_page_are_written(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("{{gates arm=first show=seed digits=0}}")
    write_study(STUDY, tmp_path, {"gates": pd.DataFrame({"arm": ["first"], "seed": [3]})})
    assert (tmp_path / "README.md").read_text() == "3"
