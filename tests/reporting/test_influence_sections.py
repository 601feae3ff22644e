"""Tests of `fedmem/reporting/influence_sections.py`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fedmem.contracts.measurement import Labels
from fedmem.reporting.influence_sections import client_influence_section
from fedmem.reporting.summary import Summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, printed
from tests.reporting.summary_helpers import newer
from tests.results.read_helpers import bank, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "run", bank(), measurements=newer(), scenario_yaml=SCENARIO)
    return tmp_path / "run"


@pytest.mark.parametrize(("names", "said"), [((), "class 3"), (("cat", "dog", "bird", "<fish>"), "class <fish>")])
def test_influence_on_a_class_names_it(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    write(tmp_path / "run", bank(), measurements=newer(), scenario_yaml=SCENARIO)
    file = tmp_path / "run" / "examples.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "class_names": names}))
    summary = Summary(read(tmp_path / "run"))
    rows = [row for _, block in client_influence_section(summary, everything=True).blocks for row in block]
    assert [row for row in rows if row[0] == f"test accuracy, {said}, mean"] == [
        (f"test accuracy, {said}, mean", "3", "0.050 [0.010, 0.090]")
    ]
    assert summary.words(Labels.of(statistic="accuracy", target=3)) == ("accuracy", said)
    frame = summary.run.measurements
    if names:
        assert set(frame[frame.target == 3].target_name) == {"<fish>"}
        assert set(frame[frame.target.isna()].target_name) == {""}
    else:
        assert "target_name" not in frame


def test_table_prints_influence_utility_and_extrapolation(folder: Path) -> None:
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
    assert re.search(r"test accuracy, Süd +12 +−0\.200 \[−0\.300, −0\.100\]", text)
    assert re.search(r"test accuracy, Nord +12 +0\.300 \[0\.200, 0\.400\]", text)
    assert "client 2" not in text
    assert "test accuracy: significantly above 0 for 1 and below 0 for 1 of 3 clients." in text
    assert "The lowest and the highest are picked by their values" in text
    assert re.search(r"client gap +12 +0\.200 \[0\.100, 0\.300\] +0\.200", text)
    assert "probability of the label" not in text
    for term in ("extrapolated", "gained", "helped", "harmed", "by noise", "client influence", "client gap"):
        assert re.search(f"^{term}: [a-z]", text, re.MULTILINE), term
