"""The figures of experiments and of the README, drawn from their committed tables."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import fedmem
from experiments import figures, front_page
from fedmem.execution.run import run
from fedmem.reporting.drawing import STYLES
from fedmem.studies.experiment_figure import (
    INTERVALS,
    LEVEL_NAMES,
    finish_page,
    level_style,
    page_panels,
    stored_source,
    words_of,
)
from tests.experiments.figure_helpers import (
    boxes,
    impossible_intervals,
    interval_ends,
    legend_looks,
    outside,
    overlapping,
    points_of,
    smallest_pixels,
)
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[2]
FIGURES = {folder.name: (folder, figure) for folder, figure in figures.all_figures().items()}
each = pytest.mark.parametrize("name", FIGURES)


@cache
def drawn(name: str) -> Figure:
    """A figure, drawn once for all tests, which leave it as it is."""
    folder, figure = FIGURES[name]
    return figure.figure(folder)


@each
def test_no_text_overlaps_another_or_leaves_the_figure(name: str) -> None:
    drawn_boxes = boxes(drawn(name))
    assert overlapping(drawn_boxes) == []
    assert outside(drawn_boxes, drawn(name)) == []


@each
def test_texts_are_readable_at_700_pixels(name: str) -> None:
    assert smallest_pixels(drawn(name)) >= 10


@each
def test_intervals_lie_in_the_possible_range(name: str) -> None:
    assert impossible_intervals(drawn(name)) == []
    assert any(list(interval_ends(axes, across)) for axes in drawn(name).axes for across in (True, False))


@each
def test_levels_look_the_same_everywhere(name: str) -> None:
    colours = {STYLES[place]["color"]: place for place in LEVEL_NAMES}
    looks = legend_looks(drawn(name))
    for place, label in LEVEL_NAMES.items():
        assert looks.get(label, level_look(place)) == level_look(place)
    for label, (colour, marker) in looks.items():
        if str(colour) in colours:
            level = colours[str(colour)]
            assert label.startswith(LEVEL_NAMES[level].split(" (")[0])
            assert marker == level_look(level)[1]


def level_look(place: str) -> tuple[object, object]:
    return STYLES[place]["color"], STYLES[place]["marker"]


@each
def test_points_of_a_level_are_values_of_that_level(name: str) -> None:
    folder, figure = FIGURES[name]
    table = pd.read_csv(folder / f"{figure.tables[0]}.csv")
    column = "value" if "value" in table else "mean"
    place = table.get("place", table.get("level"))
    for axes in drawn(name).axes:
        for label, points in points_of(axes):
            (level,) = [level for level, level_name in LEVEL_NAMES.items() if level_name == label]
            possible = table[column][place == level].to_numpy(dtype=np.float64)
            assert any(np.isin(side[~np.isnan(side)], possible).all() for side in points)


@each
def test_panels_have_names_and_the_glossary_s_words(name: str) -> None:
    for axes in filter(Axes.get_visible, drawn(name).axes):
        assert axes.get_title(loc="left")
    words = set(re.findall(r"[a-z]+", " ".join(words_of(drawn(name))).lower()))
    assert not {"holder", "writers", "owner", "told", "worse"} & words


@each
def test_the_picture_on_the_page_is_current_and_small(name: str) -> None:
    folder, figure = FIGURES[name]
    path = folder / f"{figure.name}.png"
    assert stored_source(path) == figure.source(folder, drawn(name)), "run: make figures"
    assert path.stat().st_size < 150_000
    pages = [folder / "README.md"] if name != "docs" else [ROOT / "README.md", folder / "measures.md"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        alt = text.partition(f"{figure.name}.png)")[0].rpartition("![")[2]
        assert len(alt.split("]")[0]) > 30, f"{page} must show the figure and describe it in words"


def test_every_png_in_the_repository_is_drawn_by_the_command() -> None:
    written = {folder / f"{figure.name}.png" for folder, figure in FIGURES.values()}
    assert {*(ROOT / "docs").rglob("*.png"), *(ROOT / "experiments").rglob("*.png")} == written


def test_the_helper_sees_what_it_is_for() -> None:
    figure, grid = page_panels(3, 1, 2)
    figure.text(0.9, 0.5, "far too long to end in the figure")
    for axes in grid[0]:
        axes.text(0.9, 0, "above")
        axes.text(0.9, 0.001, "below")
        axes.errorbar([0.9], [0], xerr=[[0.1], [0.3]], **level_style("local"))
        axes.set_xlabel("AUC")
        axes.set_ylabel("share", fontsize=5)
    finish_page(figure, "t", INTERVALS, grid)
    assert overlapping(boxes(figure)).count(("above", "below")) == 2
    assert outside(boxes(figure), figure) == ["far too long to end in the figure"]
    assert smallest_pixels(figure) < 10
    assert {words for words, _ in impossible_intervals(figure)} == {"AUC"}
    assert [end for _, end in impossible_intervals(figure)] == pytest.approx([1.2, 1.2])
    assert legend_looks(figure) == {LEVEL_NAMES["local"]: level_look("local")}


def test_the_first_figure_is_that_of_the_quickstart() -> None:
    scenario = fedmem.load_scenario("quickstart")
    assert (scenario.runs, scenario.clients) == (front_page.RUNS, front_page.CLIENTS)
    table = pd.read_csv(front_page.FOLDER / "memorisation.csv")
    assert set(table.kind) == set(front_page.KINDS)
    assert set(table.place) == set(LEVEL_NAMES)
    assert table["round"].max() == scenario.rounds
    assert (table.low.isna() | (table.low <= table.value)).all()
    last = table[(table.kind == "random_pattern") & (table["round"] == scenario.rounds)].set_index("place").value
    assert last["local"] > last["global"] > last["others"] > 0


def test_the_table_of_a_run_has_each_round_and_place(tmp_path: Path) -> None:
    scenario = tiny(runs=8, rounds=2, estimators=[{"kind": "memorisation"}], observe={"every": 1})
    folder = run(scenario, out=tmp_path)
    table = front_page.table_of(folder)
    assert set(table["round"]) == {0, 1, 2}
    assert set(table.place) == set(LEVEL_NAMES)
    rows = fedmem.read(folder).measurements
    rows = rows[(rows.scope == "round") & (rows.metric == "memorisation") & (rows.statistic == "")]
    rows = rows[rows.subject.isin(front_page.KINDS)]
    assert len(rows) == len(table)
    at_owner = rows[(rows["round"] == 2) & (rows.place == "owner")].sort_values("subject")
    local = table[(table["round"] == 2) & (table.place == "local")].sort_values("kind")
    for column in ("value", "low", "high", "n"):
        np.testing.assert_array_equal(local[column], at_owner[column])


def test_the_command_draws_checks_and_reads_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, figure = FIGURES["docs"]
    (tmp_path / "memorisation.csv").write_bytes((folder / "memorisation.csv").read_bytes())
    monkeypatch.setattr(figures, "all_figures", lambda: {tmp_path: figure})
    assert figures.main(["--check"]) == 1
    assert figures.main([]) == 0
    assert figures.main(["--check"]) == 0
    table = pd.read_csv(tmp_path / "memorisation.csv")
    monkeypatch.setattr(front_page, "FOLDER", tmp_path)
    monkeypatch.setattr(front_page, "table_of", lambda run_folder: table.assign(value=table.value / 2))
    assert figures.main(["--quickstart", "anywhere", "--check"]) == 1
