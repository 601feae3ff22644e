"""Tests of `fedmem/reporting/extraction_section.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.reporting.extraction_section import extraction_section
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, row
from tests.results.read_helpers import bank, write


def test_extraction_of_in_secrets_and_in_minus_out_are_shown(tmp_path: Path) -> None:
    more = {"source": "extraction", "n": 8}
    rows = [
        row("greedy", 0.75, "pattern", "place=owner", level="local", **more),
        row("greedy", 0.25, "pattern", "place=owner coin=out", level="local", **more),
        row("greedy.difference", 0.5, "pattern", "place=owner contrast=coins minus=out", level="local", **more),
        row("greedy", 0.125, "pattern", "place=others", level="local", **more),
        row("greedy", 0.5, "pattern", "", level="global", **more),
        row("beam", 0.9, "pattern", "", level="global", **more),
    ]
    write(tmp_path / "run", bank(), measurements=rows, scenario_yaml=SCENARIO)
    summary = Summary(read(tmp_path / "run"))
    ((_, shown),) = [block for block in extraction_section(summary, everything=False).blocks if block[1]]
    assert [cells[0] for cells in shown] == ["pattern", "pattern, in − out"]
    assert shown[0][2].startswith("0.75")
    assert shown[0][3].startswith("0.50")
    assert shown[1][2].startswith("0.50")
    assert shown[1][3] == "–"
    assert any(part.title == "EXTRACTION" and any(block for _, block in part.blocks) for part in sections(summary))
    everything = extraction_section(summary, everything=True)
    assert any("beam" in heading and block for heading, block in everything.blocks)


def test_each_prefix_has_rows_of_its_own(tmp_path: Path) -> None:
    more = {"source": "verbatim", "n": 8}
    rows = [
        row("greedy", value, "pattern", f"prefix={prefix} kind=pattern{place}", level=level, **more)
        for prefix, local, aggregate in ((8, 0.25, 0.125), (16, 0.75, 0.5))
        for level, place, value in (("local", " place=owner", local), ("global", "", aggregate))
    ]
    write(tmp_path / "run", bank(), measurements=rows, scenario_yaml=SCENARIO)
    ((_, shown),) = [
        block for block in extraction_section(Summary(read(tmp_path / "run")), everything=False).blocks if block[1]
    ]
    assert [(cells[0], cells[2][:4], cells[3][:4]) for cells in shown] == [
        ("pattern, prefix=8", "0.25", "0.12"),
        ("pattern, prefix=16", "0.75", "0.50"),
    ]
