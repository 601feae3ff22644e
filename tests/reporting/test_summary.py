"""The newer measures in the summary: cross-influence, whole clients, extrapolated exposure, gaps of clients."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from fedmem.contracts.measurement import Measurement
from fedmem.reporting.page import report
from fedmem.reporting.sections import sections
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.test_page import SCENARIO, at, lines, printed, row
from tests.results.test_read import bank, write

NOTHING = {"low": math.nan, "high": math.nan}


def newer() -> list[Measurement]:
    found = []
    for level, place in (("local", "owner"), ("global", "")):
        for extra, shift in (("", 0.0), ("statistic=probability", 10.0)):
            about = f"{at(place)} {extra}"
            more = {"level": level, "n": 20}
            for kind, net in (("pattern", 1.5), ("typical-own", -2.5)):
                found += [
                    row("cross_influence", net + shift, kind, about, **more),
                    row("cross_influence.null", 0.0, kind, about, **more, **NOTHING),
                    row("cross_help", 3.0 + shift, kind, about, **more),
                    row("cross_help.null", 2.75 + shift, kind, about, **more, **NOTHING),
                    row("cross_help_p", 0.04, kind, about, level=level, n=200, **NOTHING),
                    row("cross_harm", -4.0 - shift, kind, about, **more),
                    row("cross_harm.null", -3.9 - shift, kind, about, **more, **NOTHING),
                    row("cross_harm_p", 0.6, kind, about, level=level, n=200, **NOTHING),
                    row("cross_pairs_helped", 1234, kind, about, level=level, n=9000, **NOTHING),
                    row("cross_pairs_harmed", 5, kind, about, level=level, n=9000, **NOTHING),
                ]
        for scale in ("", "scale=margin"):
            about = f"{at(place)} {scale}"
            bits = 12.0 if scale else 11.0
            found.append(row("exposure_extrapolated", bits, "pattern", about, level=level))
            found.append(row("exposure_extrapolated.null", 1.4427, "pattern", about, level=level, **NOTHING))
        for subject, gap in (("", 0.2), ("client 2", 0.3), ("client 10", 0.4)):
            found.append(row("client_accuracy_gap", gap, subject, level=level, n=12))
    for read_at in ("accuracy", "loss", "own", "own_in", "accuracy target=3"):
        about = f"statistic={read_at}"
        found.append(row("client_influence", 0.05, "", about, n=3, low=0.01, high=0.09))
        for client, (value, half) in enumerate(((0.3, 0.1), (-0.2, 0.1), (0.05, 0.2))):
            some = {"low": value - half, "high": value + half, "n": 12}
            found.append(row("client_influence", value, f"client {client}", about, **some))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=newer(), scenario_yaml=SCENARIO)
    return tmp_path / "run"


def test_the_table_tells_them_in_short(folder: Path) -> None:
    text = printed(folder)
    assert re.search(r"exposure, extrapolated, bits \(without memorisation: 1\.44\)\n +pattern +80 +11\.00 \[", text)
    assert re.search(r"exposure, extrapolated from margins, bits .*\n +pattern +80 +12\.00 \[", text)
    assert re.search(r"gained by .*\n  pattern +20 +1\.50 \[1\.40, 1\.60\] +1\.50 \[1\.40, 1\.60\]", text)
    assert re.search(
        r"helped by .*\n  pattern +20 +3\.00 .*\n  pattern, by noise +20 +2\.75, p 0\.04 +2\.75, p 0\.04", text
    )
    assert re.search(r"harmed by .*\n  pattern +20 +−4\.00 .*\n  pattern, by noise +20 +−3\.90, p 0\.6", text)
    assert re.search(r"significant pairs.*\n  pattern +9000 +1,234 / 5 +1,234 / 5", text)
    assert re.search(r"test accuracy, mean +3 +0\.050 \[0\.010, 0\.090\]", text)
    assert re.search(r"test accuracy, client 1 +12 +−0\.200 \[−0\.300, −0\.100\]", text)
    assert re.search(r"test accuracy, client 0 +12 +0\.300 \[0\.200, 0\.400\]", text)
    assert "client 2" not in text
    assert "test accuracy: resolved above 0 for 1 and below 0 for 1 of 3 clients." in text
    assert "The lowest and the highest are picked by their values" in text
    assert re.search(r"client gap +12 +0\.200 \[0\.100, 0\.300\] +0\.200", text)
    assert "probability of the label" not in text
    for term in ("extrapolated", "gained", "helped", "harmed", "by noise", "client influence", "client gap"):
        assert re.search(f"^{term}: [a-z]", text, re.MULTILINE), term


def test_kinds_that_are_ranked_among_more_have_a_null_of_their_own(tmp_path: Path) -> None:
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
def test_it_fits_a_terminal_on_single_lines(folder: Path, width: int) -> None:
    fitted = lines(folder, width)
    assert max(map(len, fitted)) <= width
    assert all(line.count("[") == line.count("]") for line in fitted)
    assert any(re.match(r"  typical-own, by noise +20 +2\.75, p 0\.04 +2\.75, p 0\.04", line) for line in fitted)


def test_the_page_has_every_client_and_both_scales(folder: Path) -> None:
    page = report(folder).read_text(encoding="utf-8")
    for text in ("test accuracy, client 2", "client gap, client 10", "by probability of the label", "own examples"):
        assert text in page
    assert page.index("client gap, client 2") < page.index("client gap, client 10")
    assert "<title>a &lt;b&gt;bold&lt;/b&gt; $name [red] · run · fedmem</title>" in page


def test_without_them_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(), measurements=[row("memorisation", 0.5, "pattern")], scenario_yaml=SCENARIO)
    shown = {section.title: section for section in sections(Summary(read(tmp_path / "run")))}
    for title in ("CROSS-INFLUENCE", "CLIENT INFLUENCE", "UTILITY"):
        assert not any(block for _, block in shown[title].blocks)
        assert not shown[title].notes


def test_every_row_has_its_n(folder: Path) -> None:
    for section in sections(Summary(read(folder)), everything=True):
        for _, block in section.blocks:
            for cells in block:
                assert len(cells) == len(section.columns)
                assert re.fullmatch(r"\d+(/\d+)*", cells[1]), cells
