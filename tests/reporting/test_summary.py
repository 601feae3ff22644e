"""The newer measures in the summary: cross-influence, whole clients, extrapolated exposure, gaps of clients."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedmem.reporting.page import report
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.labelling import labels
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
    for text in ("test accuracy, client 2 (7)", "client gap, client 10", "by probability of the label", "own examples"):
        assert text in page
    assert page.index("client gap, client 2 (7)") < page.index("client gap, client 10")
    assert "<title>a &lt;b&gt;bold&lt;/b&gt; $name [red] · run · fedmem</title>" in page


def test_every_row_has_its_n(folder: Path) -> None:
    for section in sections(Summary(read(folder)), everything=True):
        for _, block in section.blocks:
            for cells in block:
                assert len(cells) == len(section.columns)
                assert re.fullmatch(r"\d+(/\d+)*", cells[1]), cells


def test_an_attack_counts_the_clusters_of_its_interval(tmp_path: Path) -> None:
    """Four owners in three runs; of the other kind one owner in two runs, as NaN and other views do not count."""
    at_message = {"source": "leakage", "round": 3}
    found = [row("margin", 1.0, kind, "view=message", source="leakage") for kind in ("pattern", "typical-own")]
    for run in range(3):
        found += [
            row("margin", 1.0, "3", f"view=message kind=pattern owner={k}", run=run, **at_message) for k in range(4)
        ]
        found.append(row("margin", float("nan"), "3", "view=message kind=typical-own owner=1", run=run, **at_message))
    for run in range(2):
        found.append(row("margin", 1.0, "5", "view=message kind=typical-own owner=2", run=run, **at_message))
        found.append(row("margin", 1.0, "5", "view=first kind=typical-own owner=0", run=run, **at_message))
    found += [
        row("margin", 0.0, "6", f"view=message coin=out kind=pattern owner={k}", run=0, **at_message) for k in range(9)
    ]
    write(tmp_path / "run", bank(), measurements=found, scenario_yaml=SCENARIO)
    summary, view = Summary(read(tmp_path / "run")), labels("view=message")
    assert summary.clusters("leakage", "margin", "global", "pattern", view) == 3
    assert summary.clusters("leakage", "margin.difference", "global", "pattern", view) == 3
    assert summary.clusters("leakage", "margin", "global", "typical-own", view) == 2
    assert summary.clusters("leakage", "margin", "local", "pattern", view) == 2, "the fewest possible, without rows"


@pytest.mark.parametrize(("low", "is_shown"), [(0.3, True), (0.06, True), (0.04, False)])
def test_a_ratio_to_an_effect_near_the_null_is_undefined(tmp_path: Path, low: float, is_shown: bool) -> None:
    """The effect is 0.5, and its interval must end above a tenth of it."""
    rows = [
        row("memorisation", 0.5, "pattern", "place=owner", level="local", low=low, high=0.9),
        row("memorisation", 0.2, "pattern"),
        row("retention", 0.4, "pattern", "of=memorisation", low=-71.46, high=0.68),
    ]
    write(tmp_path / "run", bank(), measurements=rows, scenario_yaml=SCENARIO)
    run = read(tmp_path / "run")
    retention = next(section for section in sections(Summary(run)) if section.title == "RETENTION")
    (shown,) = (cells[-1] for _, block in retention.blocks for cells in block)
    assert shown == ("0.40 [−71.46, 0.68]" if is_shown else "undefined")
    assert any("within a tenth" in note for note in retention.notes) != is_shown
    stored = run.measurements[run.measurements.metric == "retention"]
    assert stored.value.tolist() == [0.4], "what is stored stays as it is"
