"""Tests of `fedmem/reporting/proxy_section.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmem.reporting.proxy_section import proxy_section
from fedmem.reporting.sections import omitted_measures, sections
from fedmem.reporting.summary import Summary
from fedmem.reporting.table import _Table
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
    found += [row("unique_information", 1.5, "pattern"), row("v_information_gain", 2.5, "pattern")]
    write(tmp_path / "run", bank(), measurements=found, scenario_yaml=SCENARIO)
    return Summary(read(tmp_path / "run"))


def test_a_row_has_in_out_and_their_difference(summary: Summary) -> None:
    section = proxy_section(summary, everything=True)
    blocks = dict(section.blocks)
    assert len(blocks) == 3
    heading, block = next((heading, block) for heading, block in blocks.items() if "cumulative" in heading)
    assert heading == "cumulative loss by participations, nats"
    assert [cells[0] for cells in block] == ["pattern, local", "pattern, global", "pattern, others"]
    assert all([cell.split(" ")[0] for cell in cells[2:]] == ["0.250", "0.750", "−0.500"] for cells in block)
    assert "not memorisation" in section.notes[0]
    titles = [[one.title for one in sections(summary, everything=everything)] for everything in (False, True)]
    assert ["PROXIES" in some for some in titles] == [True, True]
    assert max(len(block) for _, block in proxy_section(summary, everything=False).blocks) == 2


def test_a_proxy_may_have_a_difference_alone(summary: Summary) -> None:
    blocks = dict(proxy_section(summary, everything=True).blocks)
    for heading, value in (("unique information, nats", "1.5"), ("pointwise V-information, bits", "2.5")):
        ((name, _, *cells),) = blocks[heading]
        assert name == "pattern, global"
        assert cells[:2] == ["–", "–"]
        assert cells[2].startswith(value)


def test_a_table_of_all_has_the_proxies_and_their_sign(summary: Summary) -> None:
    assert "cumulative_loss" not in {variant.metric for variant in summary.measures}
    assert "cumulative loss" not in omitted_measures(summary)
    text = " ".join("\n".join(line for line, _ in _Table(summary.run).lines(100)).split())
    assert "PROXIES" in text
    assert "to lower these, so that in − out is negative: cumulative loss." in text
    assert "to raise these, so that in − out is positive: pointwise V-information." in text
