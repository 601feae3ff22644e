"""Tests of `fedmem/reporting/proxy_section.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.reporting.proxy_section import proxy_section, proxy_titles
from fedmem.reporting.sections import omitted_measures, sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row, rows
from tests.results.read_helpers import bank, write


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    found = list(rows())
    for level, place in (("local", "place=owner"), ("local", "place=others"), ("global", "")):
        about = {"about": f"{place} clock=participations", "level": level}
        found += [
            row("cumulative_loss", 0.25, "pattern", **about),
            row("cumulative_loss", 0.75, "pattern", **{**about, "about": f"{about['about']} statistic=out"}),
            row("cumulative_loss_gain", -0.5, "pattern", **about),
        ]
    write(tmp_path / "run", bank(), measurements=found, scenario_yaml=SCENARIO)
    return Summary(read(tmp_path / "run"))


def test_a_row_has_in_out_and_their_difference(summary: Summary) -> None:
    section = proxy_section(summary, everything=True)
    ((heading, block),) = [(heading, block) for heading, block in section.blocks if block]
    assert heading == "cumulative loss by participations, nats"
    assert [cells[0] for cells in block] == ["pattern, local", "pattern, global", "pattern, others"]
    assert all([cell.split(" ")[0] for cell in cells[2:]] == ["0.250", "0.750", "−0.500"] for cells in block)
    assert "not memorisation" in section.notes[0]
    titles = [[one.title for one in sections(summary, everything=everything)] for everything in (False, True)]
    assert ["PROXIES" in some for some in titles] == [False, True]
    assert len(proxy_section(summary, everything=False).blocks[0][1]) == 2


def test_a_short_table_names_its_proxies(summary: Summary) -> None:
    assert proxy_titles(summary) == ["cumulative loss"]
    assert "cumulative_loss" not in {variant.metric for variant in summary.measures}
    assert "cumulative loss" in omitted_measures(summary)
