"""The style of the figures of experiments, and the checksum by which a picture knows its tables."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedmem.reporting.drawing import SETTINGS, STYLES
from fedmem.studies.experiment_figure import (
    LEVEL_NAMES,
    TableFigure,
    draw_null,
    finish_page,
    interval_bars,
    level_style,
    name_rows,
    page_panels,
    possible_range,
    setting_style,
    small_png,
    stored_source,
    words_of,
)


def test_bars_reach_to_both_ends_or_nowhere() -> None:
    value, low, high = pd.Series([1.0, 2.0]), pd.Series([0.5, np.nan]), pd.Series([3.0, np.nan])
    assert interval_bars(value, low, high).tolist() == [[0.5, 0.0], [2.0, 0.0]]


def test_bars_end_where_no_value_is_possible() -> None:
    value, low, high = pd.Series([0.9, 0.1]), pd.Series([0.7, -0.2]), pd.Series([1.1, 0.4])
    np.testing.assert_allclose(interval_bars(value, low, high, (0.0, 1.0)), [[0.2, 0.1], [0.1, 0.3]])
    np.testing.assert_allclose(interval_bars(value, low, high, (-1.0, 1.0)), [[0.2, 0.3], [0.1, 0.3]])


def test_possible_ranges_are_those_of_the_measures() -> None:
    assert possible_range("identified") == (0.0, 1.0)
    assert possible_range("memorisation") == (-1.0, 1.0)
    assert possible_range("exposure") == (0.0, math.inf)
    assert possible_range("exposure", 990)[1] == pytest.approx(math.log2(991))
    with pytest.raises(KeyError):
        possible_range("nothing")


def test_levels_and_settings_never_share_a_colour() -> None:
    colours = {level_style(place)["color"] for place in LEVEL_NAMES}
    assert len(colours) == len({level_style(place)["marker"] for place in LEVEL_NAMES}) == 3
    assert colours == {STYLES[place]["color"] for place in LEVEL_NAMES}
    settings = [setting_style(number) for number in range(len(SETTINGS))]
    assert len({look["color"] for look in settings} | colours) == len(SETTINGS) + 3
    assert len({look["marker"] for look in settings}) == len(SETTINGS)


def draw(table: pd.DataFrame) -> Figure:
    figure, grid = page_panels(2.5, 1, 1)
    grid[0][0].errorbar([0.2], [0], xerr=[[0.1], [0.1]], **level_style("global"))
    grid[0][0].errorbar([0.4], [0], xerr=[[0.1], [0.1]], **level_style("local"))
    draw_null(grid[0][0], 0.0, across=True)
    name_rows(grid[0][0], ["a$b", "c"])
    grid[0][0].set_title(f"{table['x'][0]}", loc="left")
    return finish_page(figure, "title", "what is shown", grid)


FIGURE = TableFigure(name="f", tables=("t",), draw=draw)


def test_rows_stand_from_top_to_bottom_and_levels_come_first() -> None:
    figure = draw(pd.DataFrame({"x": [1]}))
    assert figure.axes[0].get_ylim() == (1.5, -0.5)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [r"a\$b", "c"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [LEVEL_NAMES["local"], LEVEL_NAMES["global"], "without memorisation"]
    assert words_of(figure) == ["title", "what is shown", *labels, "1"]


def test_a_picture_knows_its_tables_and_words(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n1\n")
    assert not FIGURE.is_current(tmp_path)
    path = FIGURE.write(tmp_path)
    assert path == tmp_path / "f.png"
    assert FIGURE.is_current(tmp_path)
    (tmp_path / "t.csv").write_text("x\n1\n\n")
    assert not FIGURE.is_current(tmp_path)
    FIGURE.write(tmp_path)
    assert FIGURE.is_current(tmp_path)

    def with_other_words(table: pd.DataFrame) -> Figure:
        figure = draw(table)
        figure.axes[0].set_xlabel("more")
        return figure

    assert not TableFigure(name="f", tables=("t",), draw=with_other_words).is_current(tmp_path)
    path.write_bytes(small_png(FIGURE.figure(tmp_path)))
    assert stored_source(path) == ""
    assert not FIGURE.is_current(tmp_path)


def test_a_picture_has_few_colours_and_the_size_of_the_figure() -> None:
    with Image.open(io.BytesIO(small_png(draw(pd.DataFrame({"x": [1]}))))) as picture:
        assert picture.size == (1080, 375)
        assert picture.mode == "P"
        assert len(picture.getcolors(256) or []) <= 64
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int64).reshape(-1, 3)
    blue = np.array([0x00, 0x72, 0xB2])
    assert min(np.abs(pixels - blue).sum(axis=1)) < 12
