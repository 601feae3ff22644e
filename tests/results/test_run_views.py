"""Tests of `fedmem/results/run_views.py`."""

from __future__ import annotations

from pathlib import Path

from fedmem.reporting.summarise import write_summary
from fedmem.results.read import read
from tests.reporting.page_helpers import SCENARIO, rows
from tests.results.read_helpers import bank, write


def test_a_run_shows_itself_with_and_without_a_summary(tmp_path: Path) -> None:
    write(tmp_path / "run", bank(m=20, canaries=10, seed=1), measurements=rows(), scenario_yaml=SCENARIO)
    run = read(tmp_path / "run")
    assert "summary.json is missing; write it again with: fedmem report" in run._repr_html_()
    write_summary(tmp_path / "run")
    page = run._repr_html_()
    assert "a &lt;b&gt;bold&lt;/b&gt; $name [red]: 4 runs" in page
    assert run.summary().verdict("local").text.split(" (")[0] in page
