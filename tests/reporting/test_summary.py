"""The newer measures in the summary: cross-influence, whole clients, extrapolated exposure, gaps of clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.reporting.page import report
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, lines, printed, row
from tests.reporting.summary_helpers import NOTHING, newer
from tests.results.read_helpers import bank, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=newer(), scenario_yaml=SCENARIO)
    return tmp_path / "run"


def test_kinds_with_more_references_have_their_own_null(tmp_path: Path) -> None:
    found = []
    for kind, bits, null in (("secret", 9.0, 1.4427), ("pattern", 3.0, 1.4154)):
        for about in ("place=owner", ""):
            level = "local" if about else "global"
            found.append(row("exposure", bits, kind, about, level=level))
            found.append(row("exposure.null", null, kind, about, level=level, **NOTHING))
    write(tmp_path / "run", bank(), measurements=found, scenario_yaml=SCENARIO)
    text = printed(tmp_path / "run")
    assert "exposure, bits (without memorisation: 1.42 to 1.44)" in text
    assert "@" not in text
    assert "nan" not in text
    assert report(tmp_path / "run").is_file()


@pytest.mark.parametrize("width", [80, 100])
def test_summary_fits_a_terminal_without_broken_cells(folder: Path, width: int) -> None:
    fitted = lines(folder, width)
    assert max(map(len, fitted)) <= width
    start = next(i for i, line in enumerate(fitted) if line.startswith("LOCAL AND GLOBAL"))
    assert all(line.count("[") == line.count("]") for line in fitted[start:])
    assert any(re.match(r"  typical-own, by noise +20 +2\.75, p 0\.04 +2\.75, p 0\.04", line) for line in fitted)


def test_the_page_has_every_client_and_both_scales(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    for text in ("test accuracy, 7 (client 2)", "client gap, client 10", "by probability of the label", "own examples"):
        assert text in page
    assert page.index("client gap, 7 (client 2)") < page.index("client gap, client 10")
    assert "<title>a &lt;b&gt;bold&lt;/b&gt; $name [red] · run · fedmem</title>" in page


def test_every_row_has_its_n(folder: Path) -> None:
    for section in sections(Summary(read(folder)), everything=True):
        for _, block in section.blocks:
            for cells in block:
                assert len(cells) == len(section.columns)
                assert re.fullmatch(r"\d+(/\d+)*", cells[1]), cells
