"""Tests of `fedmem/reporting/svg.py`."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib

from fedmem.reporting.drawing import PALETTE, Drawing, Line, over_rounds
from fedmem.reporting.svg import keys, panels


def drawing(kinds: tuple[str, ...] = ("pattern", "typical")) -> Drawing:
    lines = [
        Line(label=label, style=style, rounds=[0, 5], values=[0.1, value], lows=[0.0, value - 0.1], highs=[0.2, 0.9])
        for label, style, value in (("local, owner", "local", 0.8), ("global", "global", 0.4))
    ]
    return over_rounds("a $title", "share", dict.fromkeys(kinds, lines), "", nulls=[0.0])


def test_panels_are_well_formed_and_have_no_styles() -> None:
    settings = dict(matplotlib.rcParams)
    shown = panels(drawing(), "name")
    assert dict(matplotlib.rcParams) == settings
    assert [panel.title for panel in shown] == ["pattern", "typical"]
    for panel in shown:
        root = ElementTree.fromstring(panel.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label") == f"a $title: {panel.title}"
        assert not [element for element in root.iter() if element.get("style") or element.tag in ("style", "metadata")]
        texts = [element.text for element in root.iter("text")]
        assert "round" in texts, "text is text"
        assert "share" in texts, "each panel has its axis"
        assert "pattern" not in texts, "the title is outside, where it can be selected and broken"


def test_colours_of_levels_are_those_of_the_page() -> None:
    (first, _) = panels(drawing(), "name")
    assert 'stroke="var(--local)"' in first.svg
    assert 'stroke="var(--global)"' in first.svg
    assert not re.search(r"#[0-9a-fA-F]{6}", first.svg), "no colour is fixed"
    assert {light for light, _ in PALETTE.values()} & {dark for _, dark in PALETTE.values()} == set()


def test_bands_are_drawn_where_the_intervals_are() -> None:
    """The clip of a band is in the coordinates of the panel: on `use` itself it would move with the band."""
    (first, _) = panels(drawing(), "name")
    root = ElementTree.fromstring(first.svg)
    assert [element for element in root.iter("use") if element.get("fill-opacity") == "0.17"]
    assert not [element for element in root.iter("use") if element.get("clip-path")]


def test_ids_differ_between_figures_and_are_all_used() -> None:
    text = "".join(panel.svg for name in ("one", "two") for panel in panels(drawing(), name))
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', text)) == set(ids)


def test_panels_of_one_figure_have_one_size() -> None:
    assert len({re.findall(r'viewBox="([^"]+)"', panel.svg)[0] for panel in panels(drawing(), "name")}) == 1
    (alone,) = panels(drawing(("pattern",)), "name")
    width = float(re.findall(r'viewBox="0 0 ([\d.]+)', alone.svg)[0])
    assert 230 < width < 290, "a panel alone is no wider, so that its text is no smaller"


def test_legend_has_each_label_once_with_its_mark() -> None:
    legend = {key.label: key.swatch for key in keys(drawing())}
    assert list(legend) == ["local, owner", "global", "without memorisation"]
    assert "var(--local)" in legend["local, owner"]
    assert "C" in legend["local, owner"], "a round mark"
    assert "var(--global)" in legend["global"]
    assert 'stroke-dasharray="1.5 2.5"' in legend["without memorisation"]
    for swatch in legend.values():
        ElementTree.fromstring(swatch)


def test_equal_figures_give_equal_panels_and_png_stays() -> None:
    one, other = drawing(), drawing()
    before = one.png()
    assert panels(one, "name") == panels(other, "name")
    assert before == drawing().png()


def test_hostile_titles_stay_text() -> None:
    evil = "<script>\"'&\x00"
    (panel,) = panels(drawing((evil,)), "name")
    assert panel.title == evil, "the page escapes it"
    root = ElementTree.fromstring(panel.svg)
    assert root.get("aria-label") == "a $title: <script>\"'&\\x00"
    assert not list(root.iter("script"))
